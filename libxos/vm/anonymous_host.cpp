#include <linux/mman.h>

#include "libxos/base/bytes.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/memory/linux_mappings.hpp"
#include "libxos/vm/anonymous_edits.hpp"

namespace xos::vm {

void restore_memory(gva begin, std::uint64_t length) {
    const long at = static_cast<long>(begin.value), n = static_cast<long>(length);
    const long r =
        base::raw_syscall(__NR_mmap, at, n, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    if (base::is_error(r))
        cell::die(nullptr, "Linux took a part of the process arena and gives no memory back",
                  static_cast<std::uint64_t>(-r));
    advise(begin, length, the_process_arena.options().pager);
}

namespace {

bool is_zero(const std::uint64_t* page) {
    for (unsigned i = 0; i < page_size / sizeof *page; i++) {
        if (page[i]) return false;
    }
    return true;
}

}  // namespace

/// Where a part was restored, a border can remain, in a forked process for one; and mremap(2) wants
/// one mapping. The memory is copied, which nobody must write to meanwhile.
void join_mappings(gva begin, std::uint64_t length) {
    const gva end = begin + length;
    bool is_one = false;
    memory::for_each_linux_mapping([&](const memory::linux_mapping& m) {
        is_one = m.begin <= begin && end <= m.end;
        return m.end <= begin;
    });
    if (is_one || !cell::only_thread_inside()) return;
    const long n = static_cast<long>(length);
    const long copy = base::raw_syscall(__NR_mmap, 0, n, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base::is_error(copy)) return;
    for (std::uint64_t offset = 0; offset < length; offset += page_size) {
        const auto* from = reinterpret_cast<const std::uint64_t*>(begin.value + offset);
        if (!is_zero(from))
            base::copy_words(reinterpret_cast<void*>(static_cast<std::uint64_t>(copy) + offset),
                             from, page_size);
    }
    if (base::is_error(base::raw_syscall(__NR_mremap, copy, n, n, MREMAP_MAYMOVE | MREMAP_FIXED,
                                         static_cast<long>(begin.value))))
        base::raw_syscall(__NR_munmap, copy, n);
}

void show_arena_to_linux() {
    using namespace anonymous;
    arena& a = memory_arena();
    if (!a.exists()) return;
    constexpr int unmapped = -1;
    memory::host_edit editing(lock());
    for_each_run(
        a.begin(), a.grown(),
        [](gva page) {
            const arch::entry e = entry_at(page);
            if (is_linux(e)) return PROT_READ | PROT_WRITE;  // Linux's already, whatever it is
            return is_mapped(e) ? protection_for(access_of(e)) : unmapped;
        },
        [](gva begin, std::uint64_t length, int protection) {
            const long at = static_cast<long>(begin.value), n = static_cast<long>(length);
            if (protection == unmapped)
                base::raw_syscall(__NR_munmap, at, n);
            else if (protection != (PROT_READ | PROT_WRITE))
                base::raw_syscall(__NR_mprotect, at, n, protection);
        });
    base::raw_syscall(__NR_munmap, static_cast<long>((a.begin() + a.grown()).value),
                      static_cast<long>(a.length() - a.grown()));
}

}  // namespace xos::vm
