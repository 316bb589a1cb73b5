// Page tables of one's own: views.
//
// A view is a range of guest addresses that Linux knows nothing of: it has no pages until the
// application maps frames there, usually from a fault handler (`xos/trap.hpp`). Frames come from
// the cell's frame arena, which is resident memory that the guest also sees at its host address.
//
//     xos::gva v = xos::vm::reserve(1 << 20);
//     xos::gpa f = xos::vm::allocate_frame();
//     xos::vm::map(v, f, xos::vm::access::read_write);   // no exit, no flush: permissions grow
//
// Many changes go into one batch, which flushes once:
//
//     xos::vm::batch changes;
//     for (xos::gva page : written) changes.protect(page, xos::page_size, xos::vm::access::read);
//     changes.commit();                                  // no exit while no other vCPU runs
//
// Permissions that grow need no flush. Those that shrink are flushed on this vCPU and on those
// other vCPUs that are in the guest, before the call returns.
//
// All edits happen inside the guest. System calls do not see views: Linux answers EFAULT for a
// pointer into one.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <cstddef>
#include <cstdint>
#include <memory>
#include <xos/types.hpp>

namespace xos::vm {

/// What code may do with a page.
enum class access : unsigned {
    none = 0,  ///< nothing; the frame stays
    read = 1,
    read_write = 3,
    read_execute = 5,
    read_write_execute = 7,
};

/// Sizes of leaves, by the level of the page tables.
enum class leaf : unsigned {
    page_4k = 1,
    page_2m = 2,
    page_1g = 3,  ///< where `gigabyte_leaves()`
};

enum class [[nodiscard]] map_result : long{
    ok = 0,
    not_reserved = -1,  ///< the page is in no view
    misaligned = -2,
    shrinks = -3,     ///< something else is mapped there, or with more permission
    not_mapped = -4,  ///< nothing is mapped there
    too_large = -5,   ///< a large leaf covers the page: split it first
    no_frames = -6,   ///< the frame arena has too few frames left
    bad_frame = -7,   ///< beyond the vCPU's physical width
    overlap = -8,     ///< a move onto itself
    bad_option = -9,  ///< a leaf size that this view cannot have, an unknown access
};
[[nodiscard]] const char* to_string(map_result r) noexcept;

/// Reserves `bytes` of guest addresses and the tables to map leaves of the size `smallest`, and of
/// the next larger size, there. Rounded up to 64 MiB, or to 1 GiB for larger leaves. The tables
/// take 8 bytes a leaf. Call after `start()`, inside or outside. Reserved until the process ends.
/// @throws std::system_error ENOMEM, EINVAL for a leaf size that the machine lacks, or EPERM before
///         `start()`.
[[nodiscard]] gva reserve(std::size_t bytes, leaf smallest = leaf::page_4k);

/// Whether vCPUs have 1 GiB leaves.
[[nodiscard]] bool gigabyte_leaves();

/// One 4 KiB frame of the arena, zeroed when it was never used, or gpa{0} when none is left or
/// `reserve()` has not been called yet. Inside and outside, also in a fault handler.
[[nodiscard]] gpa allocate_frame() noexcept;
/// @return false, and nothing changed, for what is no frame of the arena.
bool free_frame(gpa frame) noexcept;

/// Where the application can read and write a frame: its host address, which is valid inside, too.
[[nodiscard]] void* frame_data(gpa frame) noexcept;

/// Maps a frame at a page of a view, or gives the page mapped there more permission. Inside the
/// guest; from a fault handler or from anywhere else; any thread, at the same time. For views of
/// 4 KiB leaves.
map_result map(gva page, gpa frame, access a) noexcept;

/// Gives one mapped 4 KiB page exactly this access. Flushes if that takes something away. Inside
/// the guest, also in a fault handler.
map_result protect(gva page, access a) noexcept;

/// What an address translates to.
struct [[nodiscard]] translation {
    bool mapped = false;  ///< a frame is there, perhaps without any access
    access allowed = access::none;
    leaf size = leaf::page_4k;
    gpa frame;  ///< of the leaf's first byte
    bool accessed = false, dirty = false;
};

/// Inside the guest. `mapped` is false for what is in no view.
translation query(gva address) noexcept;

/// Changes that are made together, or not at all.
///
/// Nothing happens before `commit()`, which checks every change, makes them in order, and flushes
/// once. Addresses and lengths are multiples of the view's smallest leaf and lie in one view.
class batch {
  public:
    batch();
    ~batch();
    batch(batch&&) noexcept;
    batch& operator=(batch&&) noexcept;

    /// Frames from `frame` upwards. What was mapped there is replaced. Uses leaves up to `largest`
    /// where alignment allows.
    void map(gva begin, std::size_t bytes, gpa frame, access a, leaf largest = leaf::page_4k);
    /// The same, but for `scan()` the pages have not been used yet.
    void map_unused(gva begin, std::size_t bytes, gpa frame, access a,
                    leaf largest = leaf::page_4k);
    /// Frames of the frame arena, zeroed.
    void map_new(gva begin, std::size_t bytes, access a);
    /// Pages without a mapping are skipped.
    void unmap(gva begin, std::size_t bytes);
    /// ... and the frames go back to the frame arena.
    void unmap_and_free(gva begin, std::size_t bytes);
    /// Pages without a mapping are skipped. Large leaves are split where they are only partly
    /// meant.
    void protect(gva begin, std::size_t bytes, access a);
    /// Moves mappings to another place of the same or another view, replacing what was there.
    void move(gva from, std::size_t bytes, gva to);
    /// Replaces large leaves by the view's smallest ones, which translate alike.
    void split(gva begin, std::size_t bytes);
    /// Replaces whole runs of small leaves by a large one, where frames are contiguous, aligned,
    /// and accesses alike.
    void merge(gva begin, std::size_t bytes);

    [[nodiscard]] std::size_t size() const noexcept;
    void clear() noexcept;

    /// Inside the guest. Keeps the changes, so that a batch can be committed again.
    /// @return ok, or why nothing was changed; `failed()` then tells which change is meant.
    map_result commit() noexcept;
    [[nodiscard]] std::size_t failed() const noexcept;

  private:
    struct list;
    std::unique_ptr<list> list_;
};

/// Which use of a page counts.
enum class usage : unsigned { accessed = 1, dirty = 2 };

/// What scan() has found, or why it has not looked.
struct [[nodiscard]] scan_result {
    map_result result = map_result::ok;
    std::size_t found = 0;  ///< used pages; 0 unless `result` is ok
};

/// Finds the pages (smallest leaves) of a view range that were used since the last time that
/// `clear` was set: bit n of `bitmap` is page n. A page just mapped counts as used. With `clear`
/// the next use sets the bit again; that takes one flush. Inside the guest.
/// @param bitmap  one bit a page, rounded up to whole words; overwritten.
/// @return how many pages, or not_reserved or misaligned.
scan_result scan(gva begin, std::size_t bytes, usage what, bool clear,
                 std::uint64_t* bitmap) noexcept;

}  // namespace xos::vm

#endif  // C++20
