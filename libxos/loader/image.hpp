// An ELF file in memory, as Linux's fs/binfmt_elf.c puts it there.
#pragma once

#include <cstdint>

namespace xos::loader {

struct image {
    std::uint64_t bias = 0;
    std::uint64_t entry = 0;
    std::uint64_t headers = 0;  ///< of the program headers, in memory
    std::uint64_t header_count = 0;
    std::uint64_t begin = 0;
    std::uint64_t end = 0;       ///< of the last segment, with what the file does not hold
    std::uint64_t code_begin = 0, code_end = 0, data_begin = 0, data_end = 0;
    bool executable_stack = false;
};

/// Who chooses the address of a file that does not demand one.
enum class placement { program, linker };

/// Null, or what is wrong; `error` is Linux's.
const char* map_image(image& made, int fd, placement where, long& error);

/// A random number of pages, less than 2^bits; zero where the process wants no randomness.
std::uint64_t random_pages(unsigned bits);

}  // namespace xos::loader
