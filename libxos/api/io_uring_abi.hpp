// The interface of io_uring (Linux, include/uapi/linux/io_uring.h), as far as it is used here. The
// distribution's header may be older than the running kernel.
#pragma once

#include <cstddef>
#include <cstdint>

namespace xos::api::uring {

struct sq_offsets {
    std::uint32_t head, tail, ring_mask, ring_entries, flags, dropped, array, reserved1;
    std::uint64_t user_address;
};
struct cq_offsets {
    std::uint32_t head, tail, ring_mask, ring_entries, overflow, cqes, flags, reserved1;
    std::uint64_t user_address;
};
struct parameters {
    std::uint32_t sq_entries, cq_entries, flags, sq_thread_cpu, sq_thread_idle, features, wq_fd;
    std::uint32_t reserved[3];
    sq_offsets sq;
    cq_offsets cq;
};
static_assert(sizeof(parameters) == 120);

/// A submission queue entry.
struct sqe {
    std::uint8_t opcode, flags;
    std::uint16_t priority;
    std::int32_t fd;
    std::uint64_t offset;
    std::uint64_t address;
    std::uint32_t length;
    std::uint32_t operation_flags;
    std::uint64_t user_data;
    std::uint64_t reserved[3];
};
static_assert(sizeof(sqe) == 64 && offsetof(sqe, user_data) == 32);

/// A completion queue entry.
struct cqe {
    std::uint64_t user_data;
    std::int32_t result;
    std::uint32_t flags;
};
static_assert(sizeof(cqe) == 16);

/// The argument of io_uring_enter with enter_extended.
struct enter_argument {
    std::uint64_t signal_mask;
    std::uint32_t signal_mask_bytes, reserved;
    std::uint64_t time;
};

struct probe {
    std::uint8_t last_operation, length;
    std::uint16_t reserved1;
    std::uint32_t reserved2[3];
    struct {
        std::uint8_t operation, reserved1;
        std::uint16_t flags;
        std::uint32_t reserved2;
    } operations[256];
};
inline constexpr std::uint16_t probe_supported = 1;

// What parameters::flags asks for.
inline constexpr std::uint32_t setup_sq_thread = 1u << 1, setup_cq_size = 1u << 3,
                               setup_clamp = 1u << 4, setup_submit_all = 1u << 7,
                               setup_cooperative = 1u << 8, setup_tell_of_work = 1u << 9,
                               setup_single_issuer = 1u << 12, setup_defer_work = 1u << 13;
// What parameters::features tells.
inline constexpr std::uint32_t feature_single_mapping = 1u << 0, feature_no_drop = 1u << 1,
                               feature_stable_submission = 1u << 2, feature_fast_poll = 1u << 5,
                               feature_extended_enter = 1u << 8,
                               feature_linked_files = 1u << 12;  // since Linux 5.18

inline constexpr std::uint64_t mapping_of_rings = 0, mapping_of_entries = 0x1000'0000;

// The submission ring's flags.
inline constexpr std::uint32_t sq_needs_wakeup = 1u << 0, sq_cq_overflow = 1u << 1,
                               sq_has_work = 1u << 2;

inline constexpr std::uint32_t enter_get_events = 1u << 0, enter_wake_sq_thread = 1u << 1,
                               enter_wait_for_room = 1u << 2, enter_extended = 1u << 3;

inline constexpr std::uint32_t register_probe = 8;

/// Operations that only the engine itself makes; the others are detail::io_code.
inline constexpr std::uint8_t operation_cancel = 14, operation_link_timeout = 15;

inline constexpr std::uint8_t entry_links_next = 1u << 2;
inline constexpr std::uint32_t timeout_is_success = 1u << 5;

}  // namespace xos::api::uring
