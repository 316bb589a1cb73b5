// What others offer of the same kind: the ticks that so many operations take.
#pragma once

#include <cstdint>

namespace xos::bench {

std::uint64_t boost_yields(std::uint64_t operations);
std::uint64_t boost_spawns(std::uint64_t operations);
std::uint64_t boost_locks(std::uint64_t operations);
std::uint64_t boost_ping_pongs(std::uint64_t operations);
std::uint64_t boost_sends(std::uint64_t operations);

std::uint64_t pth_yields(std::uint64_t operations);
std::uint64_t pth_spawns(std::uint64_t operations);
std::uint64_t pth_locks(std::uint64_t operations);

}  // namespace xos::bench
