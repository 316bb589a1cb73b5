#include "tree.hpp"

#include <algorithm>
#include <cstring>

namespace swizzle {

namespace {

constexpr std::size_t fan_out = node::max_keys + 1;

std::size_t nodes_above(std::size_t nodes) {
    return (nodes + fan_out - 1) / fan_out;
}

std::size_t pages_for(std::size_t leaves) {
    std::size_t pages = leaves;
    for (std::size_t n = leaves; n > 1;) pages += n = nodes_above(n);
    return pages;
}

node* at_offset(std::size_t page) {
    return reinterpret_cast<node*>(page * xos::page_size);
}

template <class F>
void for_each_reference(node& n, F&& f) {
    if (n.is_leaf) return;
    for (std::uint32_t i = 0; i <= n.count; i++) f(n.children[i]);
}

}  // namespace

void swizzle(node& n, std::byte* base) {
    for_each_reference(n, [&](node*& to) {
        to = reinterpret_cast<node*>(base + reinterpret_cast<std::uintptr_t>(to));
    });
}

void unswizzle(node& n, const std::byte* base) {
    for_each_reference(n, [&](node*& to) {
        to = reinterpret_cast<node*>(reinterpret_cast<const std::byte*>(to) - base);
    });
}

bool identical(const node& a, const node& b) {
    const auto* bytes = reinterpret_cast<const std::byte*>(&a);
    return std::memcmp(bytes, reinterpret_cast<const std::byte*>(&b), sizeof a) == 0;
}

std::uint64_t* find(node* n, std::uint64_t key) {
    while (!n->is_leaf) {
        const auto* above = std::upper_bound(n->keys, n->keys + n->count, key);
        n = n->children[above - n->keys];
    }
    const auto* at = std::lower_bound(n->keys, n->keys + n->count, key);
    return at != n->keys + n->count && *at == key ? &n->values[at - n->keys] : nullptr;
}

tree_layout::tree_layout(std::size_t pages) {
    std::size_t leaves = std::max<std::size_t>(pages, 1);
    while (leaves > 1 && pages_for(leaves) > pages) leaves--;
    levels_.push_back({0, leaves, node::max_keys});
    while (levels_.back().nodes > 1) {
        const level& below = levels_.back();
        levels_.push_back(
            {below.first_page + below.nodes, nodes_above(below.nodes), below.keys_below * fan_out});
    }
}

void tree_layout::make(std::size_t page, const std::vector<std::uint32_t>& more, node& n) const {
    std::size_t height = 0;
    while (page >= levels_[height].first_page + levels_[height].nodes) height++;
    const std::size_t position = page - levels_[height].first_page;
    n = {};
    n.is_leaf = height == 0;
    if (n.is_leaf) {
        n.count = node::max_keys;
        for (std::size_t i = 0; i < node::max_keys; i++) {
            const std::size_t index = position * node::max_keys + i;
            n.keys[i] = key_at(index);
            n.values[i] = value_of(n.keys[i]) + more[index];
        }
        return;
    }
    const level& below = levels_[height - 1];
    const std::size_t first = position * fan_out;
    const std::size_t children = std::min(fan_out, below.nodes - first);
    n.count = static_cast<std::uint32_t>(children - 1);
    for (std::size_t i = 0; i < children; i++) {
        n.children[i] = at_offset(below.first_page + first + i);
        if (i) n.keys[i - 1] = key_at((first + i) * below.keys_below);
    }
}

}  // namespace swizzle
