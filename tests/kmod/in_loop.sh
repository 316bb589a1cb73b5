#!/bin/sh
# in_loop.sh COMMAND...: runs COMMAND inside an emulated machine, with the module loaded as on a kernel whose port bus it
# cannot reach.
set -e
rmmod xos
insmod /modules/xos.ko loop=1
exec "$@"
