// Address spaces besides the main one.
//
// Each has a root of its own whose entries are the main root's, so everything is shared, also what
// is mapped later. A view that a space has separated has tables of its own there, and so have the
// levels above it; those hold copies of the main tables' other entries.
#pragma once

#include "libxos/arch/guest_area.hpp"
#include "libxos/vm/views.hpp"

namespace xos::vm {

struct other_space {
    static constexpr unsigned max_views = 16;

    bool in_use = false;
    arch::entry* root = nullptr;
    unsigned view_count = 0;
    const view* shared[max_views];  ///< the main view that the own one stands for
    view own[max_views];
    arch::entry* upper[max_views];  ///< what this view's part of `root` refers to
};

/// [0] stands for the main space and is not used.
extern other_space the_spaces[arch::guest_area::max_spaces];

/// Entries that the main tables have got since go into those of the other spaces. Under the lock.
void share_new_tables();

/// As the calling vCPU's address space has it. Kernel side.
const view* own_view(const view& shared, std::uint64_t space);
inline const view* find_view(gva a) {
    const view* v = the_views.find(a);
    const std::uint64_t space = arch::current_area()->space;
    if (space && v) [[unlikely]]
        return own_view(*v, space);
    return v;
}

/// The view of a page, if the last edit on this vCPU was in it, too; or null. In the main space
/// only, whose views are never taken down.
[[gnu::always_inline]] inline const view* view_at_hand(const arch::guest_area& area, gva page) {
    auto* v = static_cast<const view*>(area.recent_view);
    return !area.space && v && page - v->begin < v->length ? v : nullptr;
}
/// The same, however long it takes, and in any space; and at hand the next time.
inline const view* look_up(arch::guest_area& area, gva page) {
    const view* v = find_view(page);
    if (v && !area.space) area.recent_view = v;
    return v;
}

/// In an entry of a view: read-only until it is copied, or nobody else maps the frame.
inline constexpr auto copied_on_write = arch::entry_flags::software_9;

// Gateway services.
long space_make(long, long, long, long, long, long);
long space_end(long space, long, long, long, long, long);
long space_separate(long space, long address, long on_write, long, long, long);
long space_switch(long space, long, long, long, long, long);
long copy_on_write(long page, long, long, long, long, long);

}  // namespace xos::vm
