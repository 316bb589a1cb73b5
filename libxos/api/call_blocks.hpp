// Memory for queued calls: blocks of as many as one vector holds.
//
// A block comes from the part of libxos's own memory that code at the application's privilege uses,
// because a vector there is made without copies (forward/vector_host.cpp). Where there is no cell,
// or no such block is left, it comes from the heap. Lock-free, so that no fork finds it
// half-changed.
#pragma once

#include <xos/batch.hpp>

namespace xos::api {

/// For start(), which no other thread calls at the same time.
void reserve_call_blocks();

/// @throws std::bad_alloc
detail::queued_call* allocate_call_block();
void free_call_block(detail::queued_call* block) noexcept;
/// Whether a vector there is made in place.
bool is_in_place(const detail::queued_call* block) noexcept;
/// Whether one that is could be had now.
bool has_block_in_place() noexcept;

}  // namespace xos::api
