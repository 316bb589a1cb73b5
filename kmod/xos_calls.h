/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef XOS_CALLS_H
#define XOS_CALLS_H

#include <linux/types.h>
#include <asm/unistd.h>

/*
 * The calls that may be made here. Not among them: those that read or change the registers of the
 * kernel entry, the FPU, segment bases or PKRU (clone, exec, exit, sigreturn, sigaltstack,
 * arch_prctl, pkey_*); those that close descriptors (close, dup2, close_range, io_uring), because
 * KVM_RUN may hold its own without a reference; those that reach KVM again (ioctl); those that
 * change who watches (ptrace, seccomp, prctl); and what only administrators need.
 */
static const u16 xos_allowed[] = {
	__NR_read, __NR_write, __NR_open, __NR_stat, __NR_fstat, __NR_lstat, __NR_poll, __NR_lseek,
	__NR_mmap, __NR_mprotect, __NR_munmap, __NR_brk, __NR_rt_sigprocmask, __NR_pread64,
	__NR_pwrite64, __NR_readv, __NR_writev, __NR_access, __NR_pipe, __NR_select,
	__NR_sched_yield, __NR_mremap, __NR_msync, __NR_mincore, __NR_madvise, __NR_shmget,
	__NR_shmat, __NR_shmctl, __NR_dup, __NR_pause, __NR_nanosleep, __NR_getitimer, __NR_alarm,
	__NR_setitimer, __NR_getpid, __NR_sendfile, __NR_socket, __NR_connect, __NR_accept,
	__NR_sendto, __NR_recvfrom, __NR_sendmsg, __NR_recvmsg, __NR_shutdown, __NR_bind,
	__NR_listen, __NR_getsockname, __NR_getpeername, __NR_socketpair, __NR_setsockopt,
	__NR_getsockopt, __NR_wait4, __NR_kill, __NR_uname, __NR_semget, __NR_semop, __NR_semctl,
	__NR_shmdt, __NR_msgget, __NR_msgsnd, __NR_msgrcv, __NR_msgctl, __NR_fcntl, __NR_flock,
	__NR_fsync, __NR_fdatasync, __NR_truncate, __NR_ftruncate, __NR_getdents, __NR_getcwd,
	__NR_chdir, __NR_fchdir, __NR_rename, __NR_mkdir, __NR_rmdir, __NR_creat, __NR_link,
	__NR_unlink, __NR_symlink, __NR_readlink, __NR_chmod, __NR_fchmod, __NR_chown, __NR_fchown,
	__NR_lchown, __NR_umask, __NR_gettimeofday, __NR_getrlimit, __NR_getrusage, __NR_sysinfo,
	__NR_times, __NR_getuid, __NR_getgid, __NR_geteuid, __NR_getegid, __NR_getppid,
	__NR_getpgrp, __NR_getgroups, __NR_getresuid, __NR_getresgid, __NR_getpgid, __NR_getsid,
	__NR_rt_sigpending, __NR_rt_sigtimedwait, __NR_rt_sigqueueinfo, __NR_rt_sigsuspend,
	__NR_utime, __NR_statfs, __NR_fstatfs, __NR_getpriority, __NR_sched_getparam,
	__NR_sched_getscheduler, __NR_mlock, __NR_munlock, __NR_gettid, __NR_readahead,
	__NR_setxattr, __NR_lsetxattr, __NR_fsetxattr, __NR_getxattr, __NR_lgetxattr,
	__NR_fgetxattr, __NR_listxattr, __NR_llistxattr, __NR_flistxattr, __NR_removexattr,
	__NR_lremovexattr, __NR_fremovexattr, __NR_tkill, __NR_time, __NR_futex,
	__NR_sched_getaffinity, __NR_epoll_create, __NR_getdents64, __NR_semtimedop,
	__NR_fadvise64, __NR_timer_create, __NR_timer_settime, __NR_timer_gettime,
	__NR_timer_getoverrun, __NR_timer_delete, __NR_clock_gettime, __NR_clock_getres,
	__NR_clock_nanosleep, __NR_epoll_wait, __NR_epoll_ctl, __NR_tgkill, __NR_utimes,
	__NR_mq_open, __NR_mq_unlink, __NR_mq_timedsend, __NR_mq_timedreceive, __NR_mq_notify,
	__NR_mq_getsetattr, __NR_waitid, __NR_inotify_init, __NR_inotify_add_watch,
	__NR_inotify_rm_watch, __NR_openat, __NR_mkdirat, __NR_fchownat, __NR_newfstatat,
	__NR_unlinkat, __NR_renameat, __NR_linkat, __NR_symlinkat, __NR_readlinkat, __NR_fchmodat,
	__NR_faccessat, __NR_pselect6, __NR_ppoll, __NR_splice, __NR_tee, __NR_sync_file_range,
	__NR_vmsplice, __NR_utimensat, __NR_epoll_pwait, __NR_signalfd, __NR_timerfd_create,
	__NR_eventfd, __NR_fallocate, __NR_timerfd_settime, __NR_timerfd_gettime, __NR_accept4,
	__NR_signalfd4, __NR_eventfd2, __NR_epoll_create1, __NR_pipe2, __NR_inotify_init1,
	__NR_preadv, __NR_pwritev, __NR_recvmmsg, __NR_prlimit64, __NR_syncfs, __NR_sendmmsg,
	__NR_getcpu, __NR_renameat2, __NR_getrandom, __NR_memfd_create, __NR_mlock2,
	__NR_copy_file_range, __NR_preadv2, __NR_pwritev2, __NR_statx, __NR_pidfd_send_signal,
	__NR_pidfd_open, __NR_openat2, __NR_faccessat2, __NR_epoll_pwait2, __NR_futex_waitv,
};

#endif
