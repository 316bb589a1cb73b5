#include "libxos/syscall/local.hpp"

xos::local_call xos_local_calls[XOS_SYSCALL_TABLE] = {};
