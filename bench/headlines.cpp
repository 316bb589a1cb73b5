#include "bench/headlines.hpp"

#include <string>

namespace xos::bench {

namespace {

struct headline {
    const char *name, *text;
};

/// Those that tell what libxos is good for, and those that tell what it costs.
constexpr headline headlines[] = {
    {"cell/start", "a cell from nothing"},
    {"cell/enter", "enter a cell"},
    {"trap/fault-map", "page fault to a C++ handler that maps a page, and retry"},
    {"trap/fault-map-fpu", "the same page fault, the handler may use vector registers"},
    {"trap/fault-map-zero", "the same page fault, zeroing the page"},
    {"trap/breakpoint", "breakpoint to a handler and back"},
    {"vm/trap-only-pf", "write to a protected page, skipped by a handler"},
    {"vm/appel1", "protect a page, write to it, unprotect it in the handler"},
    {"vm/protect-scattered-512", "protect a page of 512 scattered ones, in a batch"},
    {"vm/cow", "write to a page shared with a snapshot (Linux: a private mapping): copy it, go on"},
    {"vm/map-touch-unmap-4k", "mmap, touch, munmap of 4 KiB, zeroed"},
    {"vm/map-touch-unmap-2m", "mmap, touch, munmap of 2 MiB, zeroed (Linux: by small pages)"},
    {"vm/map-touch-unmap-2m-large", "mmap, touch, munmap of 2 MiB, zeroed (Linux: one large page)"},
    {"vm/map-unmap-128m-untouched", "mmap and munmap of 128 MiB, untouched"},
    {"vm/file-fault-shared", "first write to a page of a shared file mapping"},
    {"vm/file-fault-private", "first write to a page of a private file mapping"},
    {"vm/file-fault-shared-warm",
     "first write to a shared file page that Linux has mapped already"},
    {"vm/dirty-scan-1g", "dirty bits of 1 GiB, collected and cleared (Linux: soft-dirty)"},
    {"syscall/getppid-local", "system call that the application answers in the guest"},
    {"syscall/getpid", "system call that libxos answers in the guest (getpid)"},
    {"syscall/getppid-exit", "system call forwarded to Linux"},
    {"syscall/getppid-module", "system call forwarded by the optional kernel module"},
    {"syscall/batch-32-exit", "system call of a batch of 32, forwarded"},
    {"ordinary/malloc-free", "malloc and free, the same code on both sides"},
    {"ordinary/memcpy-64k", "memcpy of 64 KiB, the same code on both sides"},
    {"app/redis-get", "redis-server, a GET by 20 connections, the client included"},
    {"app/redis-set-p16", "redis-server, a SET of 16 pipelined, the client included"},
    {"app/memcached-get", "memcached, a get by 20 connections, the client included"},
    {"app/redis-get-batched",
     "redis-server, a GET by 20 connections, inside with --event-loops=batched"},
    {"app/memcached-get-batched",
     "memcached, a get by 20 connections, inside with --event-loops=batched"},
    {"app/kvd-get-batch", "the example kvd, whose calls go in batches inside"},
    {"app/sqlite-insert", "sqlite, a transaction with one row, in a file in memory"},
    {"app/python", "Python: JSON, dictionaries, regular expressions"},
    {"app/gzip", "gzip of 25 MB"},
    {"app/fork-exec-50", "dash starts /bin/true 50 times"},
    {"app/redis", "redis-server, 20,000 GETs by 16 connections"},
    {"alloc/malloc-small", "malloc and free of small objects, jemalloc on both sides"},
    {"alloc/large-churn-glibc", "blocks of 1 to 64 MiB, touched, glibc on both sides"},
};

}  // namespace

const char* headline_of(const benchmark& b) {
    const std::string name = full_name(b);
    for (const auto& [of, text] : headlines) {
        if (name == of) return text;
    }
    return nullptr;
}

}  // namespace xos::bench
