// The tree and the buffer pool of swizzle, without page faults.
#include <algorithm>
#include <catch2/catch.hpp>

#include "swizzle/buffer_pool.hpp"
#include "swizzle/tree.hpp"

using namespace swizzle;

namespace {

std::vector<node> contents(const tree_layout& layout) {
    std::vector<node> nodes(layout.pages());
    const std::vector<std::uint32_t> no_changes(layout.keys());
    for (std::size_t page = 0; page < nodes.size(); page++)
        layout.make(page, no_changes, nodes[page]);
    return nodes;
}

/// Nothing faults here; it remembers what the pool has asked for.
class recorded_space final : public object_space {
  public:
    explicit recorded_space(std::size_t frames) : frames_(frames) {}

    void serve(const provider&, const std::function<void()>& work) override { work(); }
    std::byte* base() override { return reinterpret_cast<std::byte*>(0x100000); }
    std::byte* incoming(std::size_t frame) override {
        return reinterpret_cast<std::byte*>(&frames_[frame]);
    }
    void map(placement where, intent) override { mapped.push_back(where.page); }
    const std::byte* contents(placement where) override { return incoming(where.frame); }
    void unmap(std::span<const placement> pages) override {
        for (const placement& p : pages) unmapped.push_back(p.page);
    }
    void take_accessed(std::uint64_t* bits) override {
        for (const std::size_t page : accessed) bits[page / 64] |= std::uint64_t{1} << page % 64;
        accessed.clear();
    }

    std::vector<std::size_t> mapped, unmapped, accessed;

  private:
    std::vector<node> frames_;
};

using pages = std::vector<std::size_t>;

}  // namespace

TEST_CASE("every key of a tree is found, and no other") {
    for (const std::size_t size : {1, 2, 3, 4, 255, 256, 257, 258, 259, 600}) {
        const tree_layout layout(size);
        CAPTURE(size);
        CHECK(layout.pages() <= size);
        CHECK(layout.pages() + 2 >= size);
        auto nodes = contents(layout);
        auto* base = reinterpret_cast<std::byte*>(nodes.data());
        for (node& n : nodes) swizzle::swizzle(n, base);
        node* root = &nodes[layout.root_page()];
        std::size_t wrong = 0;
        for (std::size_t i = 0; i < layout.keys(); i++) {
            const std::uint64_t key = tree_layout::key_at(i);
            const std::uint64_t* value = find(root, key);
            wrong += !value || *value != tree_layout::value_of(key);
            wrong += find(root, key - 1) != nullptr || find(root, key + 1) != nullptr;
        }
        CHECK(wrong == 0);
    }
}

TEST_CASE("unswizzling gives back what was in the file") {
    const tree_layout layout(300);
    const auto before = contents(layout);
    auto nodes = before;
    auto* base = reinterpret_cast<std::byte*>(0x7f0000000000);
    for (node& n : nodes) swizzle::swizzle(n, base);
    node& root = nodes[layout.root_page()];
    CHECK(reinterpret_cast<std::byte*>(root.children[1]) >= base);
    for (node& n : nodes) unswizzle(n, base);
    CHECK(std::equal(nodes.begin(), nodes.end(), before.begin(), before.end(), identical));
}

TEST_CASE("the pool replaces pages that were not accessed, and writes back those that changed") {
    const tree_layout layout(200);
    page_file store(layout.pages(), transfer::system_calls);
    const auto before = contents(layout);
    for (std::size_t page = 0; page < before.size(); page++) store.write(page, &before[page]);
    recorded_space space(8);
    buffer_pool pool(space, store, 8);

    for (std::size_t page = 0; page < 8; page++) pool.provide(page, intent::read);
    CHECK(space.unmapped == pages{});
    pool.provide(2, intent::write);  // mapped already
    reinterpret_cast<node*>(space.incoming(2))->values[7] = 42;
    CHECK(pool.counters().reads == 8);

    space.accessed = {0, 1};
    pool.provide(100, intent::read);
    CHECK(space.unmapped == pages{2});
    CHECK(pool.counters().writes == 1);
    // The hand goes on from there, and comes to those that were spared.
    for (std::size_t page = 101; page < 107; page++) pool.provide(page, intent::read);
    CHECK(space.unmapped == pages{2, 3, 4, 5, 6, 7, 0});
    CHECK(pool.counters().writes == 1);

    pool.provide(2, intent::read);
    CHECK(space.mapped.back() == 2);
    pool.evict_all();
    CHECK(pool.counters().evictions == 16);
    auto expected = before;
    expected[2].values[7] = 42;
    std::size_t wrong = 0;
    for (std::size_t page = 0; page < expected.size(); page++) {
        node n;
        store.read(page, &n);
        wrong += !identical(n, expected[page]);
    }
    CHECK(wrong == 0);
}

TEST_CASE("a root leaves the pool with offsets, whatever it was used for") {
    const tree_layout layout(200);
    for (const auto how : {transfer::system_calls, transfer::copies}) {
        page_file store(layout.pages(), how);
        const auto before = contents(layout);
        for (std::size_t page = 0; page < before.size(); page++) store.write(page, &before[page]);
        recorded_space space(4);
        buffer_pool pool(space, store, 4);
        pool.provide(layout.root_page(), intent::write);
        const auto* root = reinterpret_cast<const node*>(space.incoming(0));
        CHECK(reinterpret_cast<std::byte*>(root->children[3]) == space.base() + 3 * 4096);
        pool.evict_all();
        node n;
        store.read(layout.root_page(), &n);
        CHECK(identical(n, before.back()));
    }
}
