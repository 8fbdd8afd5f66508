/* SPDX-License-Identifier: Apache-2.0 */
/* Starts each of its arguments with /bin/sh, and then waits: the least that starting can cost. */

#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

int main(int count, char **names)
{
    for (int i = 1; i < count; i++) {
        char *arguments[] = {"sh", names[i], NULL};
        pid_t pid;
        int error = posix_spawn(&pid, "/bin/sh", NULL, NULL, arguments, environ);
        if (error) {
            fprintf(stderr, "cannot start %s: %s\n", names[i], strerror(error));
            return 1;
        }
    }
    pause();
    return 0;
}
