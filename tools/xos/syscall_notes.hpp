// What a reader should know about a system call in a cell besides who carries it out.
#pragma once

#include <string_view>

namespace xos::tool {

/// Empty for most.
inline std::string_view note_on(std::string_view name) {
    struct note {
        std::string_view name, text;
    };
    static constexpr note notes[] = {
        {"read",
         "inside with `--event-loops=batched`, where a turn has the bytes "
         "([batching.md](batching.md#event-loops-in-one-crossing-a-turn))"},
        {"recvfrom", "as read"},
        {"write", "as read, where the socket has room"},
        {"sendto", "as write"},
        {"writev", "as write"},
        {"sendmsg", "as write"},
        {"mmap",
         "inside: private anonymous memory at an address of libxos's choice, and what is "
         "mapped over it later"},
        {"mprotect", "inside for memory that was mapped inside"},
        {"munmap", "inside for memory that was mapped inside"},
        {"mremap", "inside for memory that was mapped inside"},
        {"madvise",
         "inside for memory that was mapped inside; advice that only Linux can follow "
         "goes to Linux"},
        {"getpid", "[inside](#calls-that-never-leave) once the thread has asked"},
        {"gettid", "as getpid"},
        {"getuid", "[inside](#calls-that-never-leave) once the thread has asked twice"},
        {"geteuid", "as getuid"},
        {"getgid", "as getuid"},
        {"getegid", "as getuid"},
        {"setuid", "Linux's, and the guest forgets what it knows of the thread's ids"},
        {"setgid", "as setuid"},
        {"setreuid", "as setuid"},
        {"setregid", "as setuid"},
        {"setresuid", "as setuid"},
        {"setresgid", "as setuid"},
        {"setns", "as setuid"},
        {"unshare", "as setuid"},
        {"mlock", "memory that was mapped inside becomes Linux's ([memory.md](memory.md))"},
        {"mlock2", "as mlock"},
        {"mbind", "as mlock"},
        {"mseal", "as mlock"},
        {"set_mempolicy_home_node", "as mlock"},
        {"vmsplice", "as mlock: the pages are lent"},
        {"process_madvise", "as mlock"},
        {"io_uring_setup", "from then on memory that is given back loses its frames"},
        {"io_uring_enter", "as io_uring_setup"},
        {"io_uring_register", "as io_uring_setup; registered buffers become Linux's"},
        {"io_setup", "as io_uring_setup"},
        {"setsockopt", "SO_ZEROCOPY: as io_uring_setup"},
        {"ioctl", "as io_uring_setup, unless it is known to keep no memory"},
        {"userfaultfd", "all memory becomes Linux's"},
        {"mlockall",
         "with MCL_ONFAULT, or what libxos keeps in reserve would become resident: a page is "
         "locked "
         "when it is touched"},
        {"brk", "inside under `xos run`, where every thread is inside"},
        {"pkey_mprotect", "takes part in what may be executed, as mprotect"},
        {"shmat", "takes part in what may be executed, with SHM_EXEC"},
        {"getdents", "libxos's own descriptors are left out of /proc/self/fd"},
        {"getdents64", "libxos's own descriptors are left out of /proc/self/fd"},
        {"readlink", "/proc/self/exe is the program, also where Linux knows only the loader"},
        {"readlinkat", "as readlink"},
        {"rseq", "ENOSYS: KVM cannot restart a critical section ([signals.md](signals.md))"},
        {"close", "a descriptor of libxos's own: EBADF"},
        {"dup2", "onto a descriptor of libxos's own: EBADF"},
        {"dup3", "onto a descriptor of libxos's own: EBADF"},
        {"close_range", "passes by libxos's own descriptors"},
        {"prlimit64",
         "RLIMIT_NOFILE: the hard limit that a program lowers stays higher in Linux until it "
         "execs, "
         "for libxos's own descriptors"},
        {"getrlimit", "as prlimit64"},
        {"setrlimit", "as prlimit64"},
        {"kill", "as tgkill"},
        {"tkill", "as tgkill"},
        {"tgkill",
         "Linux; a thread that ends its process with a core dump does so in the application's "
         "state"},
        {"rt_sigaction", "libxos keeps the table of handlers; Linux has its trampoline"},
        {"rt_sigreturn", "from the frame that Linux has built; see signals.md"},
        {"sigaltstack", "kept by libxos, given to Linux when a frame is built"},
        {"clone",
         "a thread gets a vCPU of its own, a process a VM of its own; no vCPU left: "
         "EAGAIN"},
        {"clone3", "as clone"},
        {"fork",
         "the child makes a VM over the copied memory; under `xos run` it runs natively until it "
         "execs or stays"},
        {"vfork", "the child runs on a vCPU of the parent's VM until it execs or ends"},
        {"execve",
         "by LD_PRELOAD, by the loader or outside, as the program demands "
         "([loader.md](loader.md))"},
        {"execveat", "as execve"},
        {"exit", "gives the vCPU back; the last thread's ends the process"},
        {"exit_group", "prints statistics first, if they are wanted"},
        {"arch_prctl",
         "FS by libxos, the rest by Linux; GS, ARCH_SHSTK_ENABLE and "
         "ARCH_SET_CPUID 0 are refused"},
        {"modify_ldt", "ENOSYS"},
        {"iopl", "ENOSYS; ports are Linux's to refuse: SIGSEGV"},
        {"ioperm", "ENOSYS; ports are Linux's to refuse: SIGSEGV"},
        {"seccomp",
         "a program of one thread under `xos run` goes on natively, for good; with several threads "
         "a filter sees the calls that libxos makes for itself, too"},
        {"prctl",
         "PR_SET_SECCOMP: as seccomp; PR_SET_VMA: as mlock; PR_SET_TSC: EINVAL for "
         "PR_TSC_SIGSEGV"},
        {"ptrace",
         "what a traced process executes runs outside; of one that is in a cell already, a tracer "
         "sees host mode: registers of the run loop, not the guest's ([run.md](run.md))"},
        {"process_vm_readv",
         "libxos reads arguments with it; where a filter refuses it, by way of a pipe"},
        {"uretprobe",
         "made by the kernel's own trampoline only, and where the application is; Linux 6.11"},
        {"uprobe", "as uretprobe; Linux 6.18"},
        {"perf_event_open",
         "a hardware breakpoint on a thread of the process itself: ENOSPC, for the debug registers "
         "are KVM's while the guest runs"},
    };
    for (const note& n : notes)
        if (n.name == name) return n.text;
    return {};
}

}  // namespace xos::tool
