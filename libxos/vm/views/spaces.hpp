// Address spaces besides the main one.
//
// Each has its own root with the main root's entries, so everything is shared, including what is
// mapped later. For a view that the space has separated, it has its own tables, and its own levels
// above them, which hold copies of the main tables' other entries.
#pragma once

#include "libxos/arch/guest_area.hpp"
#include "libxos/vm/views/views.hpp"

namespace xos::vm {

struct other_space {
    static constexpr unsigned max_views = 16;

    bool in_use = false;
    arch::entry* root = nullptr;
    unsigned view_count = 0;
    const view* shared[max_views];  ///< the main view that own[i] replaces
    view own[max_views];
    arch::entry* upper[max_views];  ///< the entry of `root` for this view
};

/// [0] stands for the main space and is unused.
extern other_space the_spaces[arch::guest_area::max_spaces];

/// Copies new entries of the main tables into the other spaces. Under the lock.
void share_new_tables();

/// The view as the calling vCPU's address space has it. Kernel side.
const view* own_view(const view& shared, std::uint64_t space);
inline const view* find_view(gva a) {
    const view* v = the_views.find(a);
    const std::uint64_t space = arch::current_area()->space;
    if (space && v) [[unlikely]]
        return own_view(*v, space);
    return v;
}

/// The view of a page if the last edit on this vCPU was in it; else null. Only in the main space,
/// whose views are never taken down.
[[gnu::always_inline]] inline const view* view_at_hand(const arch::guest_area& area, gva page) {
    auto* v = static_cast<const view*>(area.recent_view);
    return !area.space && v && page - v->begin < v->length ? v : nullptr;
}
/// Finds the view of a page in any space, however long that takes, and remembers it for next time.
inline const view* look_up(arch::guest_area& area, gva page) {
    const view* v = find_view(page);
    if (v && !area.space) area.recent_view = v;
    return v;
}

// Gateway services.
long space_make(long, long, long, long, long, long);
long space_end(long space, long, long, long, long, long);
long space_separate(long space, long address, long on_write, long, long, long);
long space_switch(long space, long, long, long, long, long);
long copy_on_write(long page, long, long, long, long, long);

}  // namespace xos::vm
