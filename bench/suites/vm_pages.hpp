// What the rows of the suite `vm` share: pages of a view and of Linux's to work on.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <xos/vm.hpp>

namespace xos::bench {

/// Half of one view, made when first asked for: so many pages that anyone may write, with a few
/// frames behind all of them. Rows leave them as they were.
inline constexpr std::uint64_t view_pages = 8192;
gva mapped_pages();
/// The other half: pages without a mapping.
gva empty_pages();

/// Maps pages to a few frames that they share.
void map_shared(gva begin, std::uint64_t pages, vm::access a);
void unmap(gva begin, std::uint64_t pages);

/// Throws what a failed commit has to say.
void commit(vm::batch& changes);
void check(vm::map_result r);

/// Anonymous private memory of Linux's, readable and writable, present, in small pages.
std::uint64_t linux_pages(std::uint64_t pages);
void unmap_linux(std::uint64_t begin, std::uint64_t pages);

/// What mmap() returned, if that is an address.
std::uint64_t mapped(void* result);

/// Writes a byte of each page.
inline void touch(std::uint64_t begin, std::uint64_t pages) {
    for (; pages; pages--, begin += page_size) *reinterpret_cast<volatile char*>(begin) = 1;
}

}  // namespace xos::bench
