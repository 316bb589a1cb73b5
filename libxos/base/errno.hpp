// errno values by name, for code without libc: positive, as Linux's headers have them. A system call
// answers -error::inval.
#pragma once

#include <asm/errno.h>

namespace xos::base::error {

inline constexpr int perm = EPERM;
inline constexpr int noent = ENOENT;
inline constexpr int srch = ESRCH;
inline constexpr int intr = EINTR;
inline constexpr int io = EIO;
inline constexpr int toobig = E2BIG;
inline constexpr int badf = EBADF;
inline constexpr int child = ECHILD;
inline constexpr int again = EAGAIN;
inline constexpr int nomem = ENOMEM;
inline constexpr int acces = EACCES;
inline constexpr int fault = EFAULT;
inline constexpr int busy = EBUSY;
inline constexpr int exist = EEXIST;
inline constexpr int nodev = ENODEV;
inline constexpr int inval = EINVAL;
inline constexpr int mfile = EMFILE;
inline constexpr int fbig = EFBIG;
inline constexpr int nospc = ENOSPC;
inline constexpr int pipe = EPIPE;
inline constexpr int nosys = ENOSYS;
inline constexpr int loop = ELOOP;
inline constexpr int proto = EPROTO;
inline constexpr int overflow = EOVERFLOW;
inline constexpr int opnotsupp = EOPNOTSUPP;
inline constexpr int timedout = ETIMEDOUT;
inline constexpr int connrefused = ECONNREFUSED;
inline constexpr int already = EALREADY;

}  // namespace xos::base::error
