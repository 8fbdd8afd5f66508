"""A library for LD_PRELOAD that makes one directory hang until a file appears."""

HANG_SHIM = r"""
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

DIR *opendir(const char *name) {
    const char *hung = getenv("HUNG_DIRECTORY");
    while (hung && strcmp(name, hung) == 0 && access(getenv("ANSWERS"), F_OK) != 0)
        usleep(10000);
    return ((DIR * (*)(const char *)) dlsym(RTLD_NEXT, "opendir"))(name);
}
"""
