// A B+ tree whose nodes are pages and refer to each other by address.
//
// In the file a reference is the offset of a page, because nobody knows where the tree will be next
// time. A page that comes into memory is swizzled: its offsets become addresses. From then on a
// lookup is a chain of ordinary pointers, and whether what they point to is in memory yet is the
// processor's business.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>
#include <xos/types.hpp>

namespace swizzle {

struct alignas(xos::page_size) node {
    static constexpr std::uint32_t max_keys = 254;

    std::uint32_t is_leaf;
    std::uint32_t count;  ///< of keys
    std::uint64_t keys[max_keys];
    union {
        node* children[max_keys + 1];  ///< keys below keys[i] are in children[i]
        std::uint64_t values[max_keys];
    };
    std::uint64_t unused[2];
};
static_assert(sizeof(node) == xos::page_size);

/// From offsets to addresses, and back.
void swizzle(node& n, std::byte* base);
void unswizzle(node& n, const std::byte* base);

/// Whether two pages are the same, byte by byte.
bool identical(const node& a, const node& b);

/// Where the key's value is, or null.
std::uint64_t* find(node* root, std::uint64_t key);

/// What each page of a tree with keys key_at(0), key_at(1), ... holds in the file.
class tree_layout {
  public:
    /// The largest tree of at most so many pages, one at least.
    explicit tree_layout(std::size_t pages);

    std::size_t pages() const { return levels_.back().first_page + 1; }
    std::size_t root_page() const { return pages() - 1; }
    std::size_t keys() const { return levels_.front().nodes * node::max_keys; }

    static std::uint64_t key_at(std::size_t index) { return index * 3 + 1; }
    static std::uint64_t value_of(std::uint64_t key) { return key * 0x9e3779b97f4a7c15; }

    /// With `more` added to the values, by index of the key.
    void make(std::size_t page, const std::vector<std::uint32_t>& more, node& n) const;

  private:
    struct level {
        std::size_t first_page, nodes;
        std::size_t keys_below;  ///< of one node
    };
    std::vector<level> levels_;  ///< from the leaves up
};

}  // namespace swizzle
