// The source of pages for page tables: the kernel part of the system arena, with a free list of its
// own. It has one owner and one lock; the host's tables and the views' tables each have one.
#pragma once

#include "libxos/arch/page_table_entry.hpp"
#include "libxos/memory/system_arena.hpp"

namespace xos::memory {

class arena_frames {
  public:
    void attach(system_arena& arena, gpa arena_gpa) {
        arena_ = &arena;
        arena_gpa_ = arena_gpa;
    }

    /// A zeroed page, or gpa{0}.
    gpa allocate() {
        if (free_.value) {
            gpa page = free_;
            arch::entry& link = *table(page);
            free_ = gpa{arch::load(link).bits};
            arch::store(link, arch::entry{});
            return page;
        }
        hva fresh = arena_->allocate_kernel(page_size);
        return fresh.value ? arena_gpa_ + (fresh - arena_->begin()) : gpa{0};
    }

    /// Takes back a page that is all zeros. The link is a not-present entry.
    void release(gpa page) {
        arch::store(*table(page), arch::entry{free_.value});
        free_ = page;
    }

    arch::entry* table(gpa page) const {
        return reinterpret_cast<arch::entry*>((arena_->begin() + (page - arena_gpa_)).value);
    }

    gpa physical_of(std::uint64_t address) const {
        return arena_gpa_ + (address - arena_->begin().value);
    }

  private:
    system_arena* arena_ = nullptr;
    gpa arena_gpa_, free_;
};

}  // namespace xos::memory
