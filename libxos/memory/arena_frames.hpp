// The source of pages for page tables: the kernel part of the system arena, with a free list of its
// own. It has one owner and one lock; the host's tables and the views' tables each have one.
#pragma once

#include "libxos/arch/page_table_entry.hpp"
#include "libxos/base/page_list.hpp"
#include "libxos/memory/system_arena.hpp"

namespace xos::memory {

class arena_frames {
    auto first_word() const {
        return [this](gpa page) { return &table(page)->bits; };
    }

  public:
    void attach(system_arena& arena, gpa arena_gpa) {
        arena_ = &arena;
        arena_gpa_ = arena_gpa;
    }

    /// A zeroed page, or gpa{0}.
    gpa allocate() {
        if (!free_.is_empty()) return free_.pop(first_word());
        hva fresh = arena_->allocate_kernel(page_size);
        return fresh.value ? arena_gpa_ + (fresh - arena_->begin()) : gpa{0};
    }

    /// Takes back a page that is all zeros.
    void release(gpa page) { free_.push(page, first_word()); }

    arch::entry* table(gpa page) const {
        return reinterpret_cast<arch::entry*>((arena_->begin() + (page - arena_gpa_)).value);
    }

    gpa physical_of(std::uint64_t address) const {
        return arena_gpa_ + (address - arena_->begin().value);
    }

  private:
    system_arena* arena_ = nullptr;
    gpa arena_gpa_;
    base::page_list free_;
};

}  // namespace xos::memory
