// Edits of the entries of one view. Under the address space's lock, in either mode; nothing fails.
#pragma once

#include "libxos/vm/views.hpp"

namespace xos::vm {

/// A part of a view that one table covers, or less.
struct piece {
    const view& v;
    std::uint64_t index;
    gva begin;
    std::uint64_t length;

    bool whole() const { return length == std::uint64_t{1} << v.coarse_shift; }
    unsigned first() const { return begin.value >> v.fine_shift & 511; }
    unsigned count() const { return static_cast<unsigned>(length >> v.fine_shift); }
    arch::entry* table() const { return v.table(index); }
    arch::entry& coarse() const { return *v.coarse[index]; }
    gva page(unsigned i) const { return begin + (std::uint64_t{i} << v.fine_shift); }
};

template <class F>
void for_each_piece(const view& v, gva begin, std::uint64_t length, F&& f) {
    const std::uint64_t size = std::uint64_t{1} << v.coarse_shift;
    while (length) {
        const std::uint64_t room = size - (begin.value & (size - 1));
        const std::uint64_t part = length < room ? length : room;
        f(piece{v, v.piece_of(begin), begin, part});
        begin = begin + part;
        length -= part;
    }
}

/// Gives the piece its table back. Translates as before, so nothing is flushed.
void split(const piece& p);
/// Puts a large leaf in the table's place.
void replace(const piece& p, arch::entry leaf, stale_translations& stale);

/// Frames from `first` upwards, by leaves up to `largest`; what was there is replaced. `use` is
/// what the entries say of accesses so far.
void map_range(const view& v, gva begin, std::uint64_t length, gpa first, access a,
               arch::level largest, stale_translations& stale,
               arch::entry_flags use = memory::accessed_and_dirty);
/// With `release`, the entries of small leaves keep their frames, marked as `leaving`.
void unmap_range(const view& v, gva begin, std::uint64_t length, bool release,
                 stale_translations& stale);
void protect_range(const view& v, gva begin, std::uint64_t length, access a,
                   stale_translations& stale);
void move_range(const view& from, gva begin, std::uint64_t length, const view& to, gva target,
                stale_translations& stale);
void split_range(const view& v, gva begin, std::uint64_t length, stale_translations& stale);
void merge_range(const view& v, gva begin, std::uint64_t length, stale_translations& stale);

}  // namespace xos::vm
