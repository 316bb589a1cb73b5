// Page tables of one's own: views.
//
// A view is a range of guest addresses that Linux knows nothing of: it has no pages until the
// application maps frames there, usually from a fault handler (`xos/trap.hpp`). Frames come from
// the cell's frame arena, which is resident memory that the guest also sees at its host address.
//
//     const xos::view v(1 << 20);                        // xos/view.hpp
//     const xos::gpa f = xos::vm::allocate_frame();
//     const auto done = xos::vm::map(v.begin(), f, xos::vm::access::read_write);
//     if (done != xos::vm::map_result::ok) ...           // no exit, no flush: permissions grow
//
// Many changes go into one batch, which flushes once:
//
//     xos::vm::batch changes;
//     for (xos::gva page : written) changes.protect(page, xos::page_size, xos::vm::access::read);
//     if (changes.commit() != xos::vm::map_result::ok) ...   // no exit while no other vCPU runs
//
// Permissions that grow need no flush. Those that shrink are flushed before the call returns, on
// this vCPU and on those other vCPUs that are in the guest.
//
// All edits happen inside the guest, also in a fault handler, on any thread, at the same time. A
// forked child has page tables of its own, over frames that Linux copies on write. System calls do
// not see views: Linux answers EFAULT for a pointer into one.
//
// What such primitives are good for is the subject of Appel and Li, "Virtual Memory Primitives for
// User Programs" (ASPLOS 1991).
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

/// Why an edit was refused. After a refusal nothing has changed.
enum class [[nodiscard]] map_result : long{
    ok = 0,
    not_reserved = -1,  ///< the page is in no view, or the range not in one
    misaligned = -2,    ///< an address, length or frame is no multiple of the leaf
    shrinks = -3,       ///< something else is mapped there, or with more permission
    not_mapped = -4,    ///< nothing is mapped there
    too_large = -5,     ///< a large leaf covers the page: split it first
    no_frames = -6,     ///< the frame arena has too few frames left
    bad_frame = -7,     ///< beyond the vCPU's physical width
    overlap = -8,       ///< a move onto itself
    bad_option = -9,    ///< a leaf size that this view cannot have, an unknown access
    not_inside = -38,   ///< a batch or a scan outside: Linux's own answer, its ENOSYS
};
/// In words, in lower case and without a full stop. Call anywhere.
[[nodiscard]] const char* to_string(map_result r) noexcept;

/// Reserves guest addresses until the process ends; `xos::view` gives them back. They come with the
/// tables to map leaves of the size `smallest` and of the next larger size there, which take 8
/// bytes a leaf. The first call reserves the frame arena. Call after start(), on any thread, inside
/// (one exit) or outside, also in a fault handler.
/// @param bytes  rounded up to 64 MiB, or to 1 GiB for leaves larger than 4 KiB.
/// @return the first address, a multiple of 1 GiB.
/// @throws std::system_error not_started; bad_argument for 0 bytes, or a leaf size that the machine
///         lacks; no_memory, also when 256 views and arenas exist; no_room.
[[nodiscard]] gva reserve(std::size_t bytes, leaf smallest = leaf::page_4k);

/// Whether page tables of vCPUs may have 1 GiB leaves (CPUID.80000001H:EDX bit 26). Call after
/// start(), anywhere.
[[nodiscard]] bool gigabyte_leaves();

/// Takes one 4 KiB frame of the frame arena, zeroed if it was never used. Call on any thread,
/// inside or outside, also in a fault handler; it takes no lock.
/// @return gpa{0} when none is left, or before the first vm::reserve().
[[nodiscard]] gpa allocate_frame() noexcept;
/// Gives back a frame that is mapped nowhere any more. Call as allocate_frame().
/// @return false, and nothing has changed, for what is no frame of the arena.
bool free_frame(gpa frame) noexcept;

/// Where the application can read and write a frame of the arena: its host address, which is valid
/// inside, too, and in system calls. Call anywhere.
[[nodiscard]] void* frame_data(gpa frame) noexcept;

/// Maps a frame at a page of a view of 4 KiB leaves, or gives the page mapped there more
/// permission. No exit, no flush (Intel SDM vol. 3A, 4.10.4.3), no lock. Call inside: outside it is
/// undefined.
/// @param page  a multiple of 4 KiB.
/// @param frame  a multiple of 4 KiB: of the frame arena, or of a memory::arena (frame_of()).
/// @return ok, not_reserved, misaligned, shrinks, too_large, bad_option.
map_result map(gva page, gpa frame, access a) noexcept;

/// Gives one mapped page of a view of 4 KiB leaves exactly this access. It flushes if that takes
/// something away. Call inside: outside it is undefined.
/// @param page  a multiple of 4 KiB.
/// @return ok, not_reserved, misaligned, not_mapped, too_large, bad_option.
map_result protect(gva page, access a) noexcept;

/// What an address translates to.
struct [[nodiscard]] translation {
    bool mapped = false;  ///< a frame is there, perhaps without any access
    access allowed = access::none;
    leaf size = leaf::page_4k;
    gpa frame;                             ///< of the leaf's first byte
    bool accessed = false, dirty = false;  ///< Intel SDM vol. 3A, 4.8
};

/// What the page tables of the calling thread's space say of an address, which need not be aligned.
/// `mapped` is false for what is in no view, and outside. Call inside.
translation query(gva address) noexcept;

/// Changes that are made together, or not at all.
///
/// Nothing happens before `commit()`, which checks every change, makes them in order, and flushes
/// once. Addresses and lengths are in bytes, multiples of the view's smallest leaf, and lie in one
/// view. One thread at a time uses a batch; adding a change may throw std::bad_alloc and can be
/// done anywhere but in a handler that may have interrupted malloc.
class batch {
  public:
    batch();
    ~batch();
    batch(batch&&) noexcept;
    batch& operator=(batch&&) noexcept;

    /// Maps frames from `frame` upwards, which is a multiple of the view's smallest leaf. What was
    /// mapped there is replaced. Uses leaves up to `largest` where alignment allows.
    void map(gva begin, std::size_t bytes, gpa frame, access a, leaf largest = leaf::page_4k);
    /// The same, but for `scan()` the pages have not been used yet.
    void map_unused(gva begin, std::size_t bytes, gpa frame, access a,
                    leaf largest = leaf::page_4k);
    /// Maps frames of the frame arena, zeroed. For views of 4 KiB leaves.
    void map_new(gva begin, std::size_t bytes, access a);
    /// Removes mappings. Pages without one are skipped. The frames belong to whom they belonged.
    void unmap(gva begin, std::size_t bytes);
    /// The same, and frames of the frame arena go back to it. For views of 4 KiB leaves.
    void unmap_and_free(gva begin, std::size_t bytes);
    /// Gives mapped pages exactly this access. Pages without a mapping are skipped. A large leaf is
    /// split when the range covers only a part of it.
    void protect(gva begin, std::size_t bytes, access a);
    /// Moves mappings to another place of the same or another view, replacing what was there.
    void move(gva from, std::size_t bytes, gva to);
    /// Replaces large leaves by the view's smallest ones. Translations stay as they are.
    void split(gva begin, std::size_t bytes);
    /// Replaces whole runs of small leaves by a large one, where frames are contiguous, aligned,
    /// and accesses alike.
    void merge(gva begin, std::size_t bytes);

    [[nodiscard]] std::size_t size() const noexcept;
    void clear() noexcept;

    /// Makes all changes or none, and keeps the list, so that a batch can be committed again. It
    /// holds the address space's lock, and signals wait meanwhile. Call inside.
    /// @return ok, or why nothing was changed; `failed()` then tells which change is meant.
    map_result commit() noexcept;
    /// Which change the last commit() refused, counted from 0; else size().
    [[nodiscard]] std::size_t failed() const noexcept;

  private:
    struct list;
    std::unique_ptr<list> list_;
};

/// Which use of a page counts (Intel SDM vol. 3A, 4.8).
enum class usage : unsigned { accessed = 1, dirty = 2 };

/// What scan() has found, or why it has not looked.
struct [[nodiscard]] scan_result {
    map_result result = map_result::ok;
    std::size_t found = 0;  ///< used pages; 0 unless `result` is ok
};

/// Finds the pages (smallest leaves) of a view range that were used since the last time that
/// `clear` was set: bit n of `bitmap` is page n. A page just mapped counts as used. With `clear`
/// the next use sets the bit again; that takes a flush. Call inside.
/// @param begin, bytes  multiples of the view's smallest leaf, in one view.
/// @param bitmap  one bit a page, rounded up to whole words; overwritten.
/// @return how many pages, or not_reserved, misaligned or not_inside.
scan_result scan(gva begin, std::size_t bytes, usage what, bool clear,
                 std::uint64_t* bitmap) noexcept;

}  // namespace xos::vm

#endif  // C++20
