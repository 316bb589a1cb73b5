#pragma once

#include <cstdint>
#include <memory>

namespace xos::bench {

/// How Linux tells which pages of a range were written to, and forgets it.
class written_pages {
  public:
    virtual ~written_pages() = default;
    /// How many since the last call, and which: bit n of `bitmap` is page n.
    virtual std::uint64_t collect(std::uint64_t* bitmap) = 0;
    virtual const char* name() const = 0;
};

/// The best way that this kernel has, for pages that are present already.
/// @throws std::runtime_error when it has none.
std::unique_ptr<written_pages> watch_writes(std::uint64_t begin, std::uint64_t bytes);

}  // namespace xos::bench
