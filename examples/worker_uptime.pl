#!/usr/bin/env perl
# SPDX-License-Identifier: Apache-2.0
# Runs on every worker: reports the load of the machine.
#
# Its parameters are arguments, set in lmcache.yaml under extra_config (with
# JSON::PP it could read LMCACHE_RUNTIME_PLUGIN_CONFIG as the others do):
#
#     runtime_plugins:
#       plugins:
#         worker_uptime: {args: ["--interval", "5", "--warn-load", "64"]}
use strict;
use warnings;
use Getopt::Long qw(GetOptions);

my ($interval, $warn_load) = (5, 64);
GetOptions('interval=f' => \$interval, 'warn-load=f' => \$warn_load)
    or exit 125;    # 125: a restart would not help

$| = 1;             # every line at once, not in blocks
$SIG{TERM} = sub { print "goodbye\n"; exit 0 };

printf "hello from %s %d of %d workers\n",
    @ENV{map { "LMCACHE_RUNTIME_PLUGIN_$_" } qw(ROLE WORKER_ID WORKER_COUNT)};
while (1) {
    open my $file, '<', '/proc/loadavg' or die "cannot read the load: $!\n";
    my ($load) = split ' ', <$file>;
    close $file;
    my $level = $load > $warn_load ? '<4>' : '';    # <4> is a warning
    print "${level}load of the machine: $load\n";
    select undef, undef, undef, $interval;          # sleeps fractions, too
}
