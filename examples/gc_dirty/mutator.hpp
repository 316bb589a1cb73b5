// Random writes to a table of records, the same ones each time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <xos/types.hpp>

namespace gc_dirty {

struct mutator_options {
    std::size_t pages = 16384;
    std::size_t record = 64;  ///< bytes of a record: a power of two from 8 to the page size
    std::size_t writes = 4096;
    unsigned hot = 100;  ///< per cent of the pages that are ever written
};

class mutator {
  public:
    explicit mutator(const mutator_options& o)
        : options_(o),
          records_(std::max<std::size_t>(1, o.pages * o.hot / 100) * (xos::page_size / o.record)) {}

    /// Overwrites `writes` records.
    void run(std::byte* table) {
        for (std::size_t i = 0; i < options_.writes; i++) {
            auto* at = table + random_() % records_ * options_.record;
            const std::uint64_t content = random_();
            for (std::size_t offset = 0; offset < options_.record; offset += 8) {
                const std::uint64_t word = content + offset;
                std::memcpy(at + offset, &word, sizeof word);
            }
        }
    }

  private:
    mutator_options options_;
    std::size_t records_;
    std::mt19937_64 random_{20261121};
};

}  // namespace gc_dirty
