#include "libxos/memory/buddy.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <memory>
#include <optional>
#include <random>
#include <utility>
#include <vector>

using xos::memory::buddy;
using u64 = std::uint64_t;

namespace {

constexpr u64 max_block = u64{1} << buddy::max_order;
constexpr auto want_clean = buddy::preference::clean;
constexpr auto want_dirty = buddy::preference::dirty;

/// Metadata as long as promised and not a byte longer: the sanitizers watch its end.
class allocator : public buddy {
  public:
    explicit allocator(u64 limit) : metadata_(std::calloc(metadata_bytes(limit), 1), &std::free) {
        attach(metadata_.get(), limit);
    }
    allocator(u64 limit, bool clean) : allocator(limit) { REQUIRE(add(0, limit, clean)); }

  private:
    std::unique_ptr<void, decltype(&std::free)> metadata_;
};

/// Metadata that tells which of its pages were touched.
class lazy_metadata {
  public:
    explicit lazy_metadata(u64 limit) : size_(buddy::metadata_bytes(limit)) {
        data_ = mmap(nullptr, size_, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        REQUIRE(data_ != MAP_FAILED);
        madvise(data_, size_, MADV_NOHUGEPAGE);
    }
    lazy_metadata(const lazy_metadata&) = delete;
    lazy_metadata& operator=(const lazy_metadata&) = delete;
    ~lazy_metadata() { munmap(data_, size_); }

    void* data() const { return data_; }
    u64 size() const { return size_; }
    u64 resident() const {
        const auto all = touched();
        return static_cast<u64>(std::count(all.begin(), all.end(), 1));
    }
    bool is_resident(u64 offset) const { return touched().at(offset / 4096); }

  private:
    std::vector<unsigned char> touched() const {
        std::vector<unsigned char> pages((size_ + 4095) / 4096);
        REQUIRE(mincore(data_, size_, pages.data()) == 0);
        for (unsigned char& page : pages) page &= 1;
        return pages;
    }

    u64 size_;
    void* data_;
};

std::vector<u64> blocks_of(const buddy& pages) {
    std::vector<u64> counts;
    for (unsigned order = 0; order <= buddy::max_order; ++order)
        counts.push_back(pages.free_blocks(order));
    return counts;
}

/// What the allocator should hold. Its free blocks follow from the free pages alone, as everything
/// merges that can: a block is free if its pages are, and its parent's are not all.
class model {
  public:
    model(u64 first, u64 count) : first_(first), pages_(count) {}

    enum class state : unsigned char { absent, free, held };
    struct page {
        state now = state::absent;
        bool clean = false;
    };
    struct free_block {
        u64 first;
        unsigned order;
        bool clean;
    };

    u64 first() const { return first_; }
    u64 end() const { return first_ + pages_.size(); }
    page& at(u64 number) { return pages_.at(number - first_); }

    bool has(u64 first, u64 count) const {
        return first >= first_ && first <= end() && count <= end() - first;
    }
    bool all(u64 first, u64 count, state wanted) const {
        return has(first, count) && std::all_of(begin(first), begin(first) + count,
                                                [&](page p) { return p.now == wanted; });
    }
    bool all_added(u64 first, u64 count) const {
        return has(first, count) && std::all_of(begin(first), begin(first) + count,
                                                [](page p) { return p.now != state::absent; });
    }
    bool all_clean(u64 first, u64 count) const {
        return has(first, count) &&
               std::all_of(begin(first), begin(first) + count, [](page p) { return p.clean; });
    }
    u64 count(state wanted, bool only_clean = false) const {
        return std::count_if(pages_.begin(), pages_.end(),
                             [&](page p) { return p.now == wanted && (!only_clean || p.clean); });
    }
    void set(u64 first, u64 count, state now) {
        for (u64 i = 0; i < count; ++i) at(first + i).now = now;
    }
    void set_clean(u64 first, u64 count, bool clean) {
        for (u64 i = 0; i < count; ++i) at(first + i).clean = clean;
    }

    std::vector<free_block> free_blocks() const {
        std::vector<u64> free_before{0}, clean_before{0};
        for (const page p : pages_) {
            free_before.push_back(free_before.back() + (p.now == state::free));
            clean_before.push_back(clean_before.back() + p.clean);
        }
        const auto full = [&](const std::vector<u64>& before, u64 first, u64 size) {
            if (first < first_ || first + size > end()) return false;
            return before[first - first_ + size] - before[first - first_] == size;
        };
        std::vector<free_block> found;
        for (u64 first = first_; first < end();) {
            unsigned order = 0;
            if (!full(free_before, first, 1)) {
                ++first;
                continue;
            }
            while (order < buddy::max_order && first % (u64{2} << order) == 0 &&
                   full(free_before, first, u64{2} << order)) {
                ++order;
            }
            found.push_back({first, order, full(clean_before, first, u64{1} << order)});
            first += u64{1} << order;
        }
        return found;
    }

  private:
    std::vector<page>::const_iterator begin(u64 first) const {
        return pages_.begin() + static_cast<std::ptrdiff_t>(first - first_);
    }

    u64 first_;
    std::vector<page> pages_;
};

using state = model::state;

/// Random operations on the pages from `first`, in an allocator for exactly so many, against the
/// model. `exact` compares free blocks at each operation.
class trial {
  public:
    struct options {
        u64 first, count;
        bool exact;
        unsigned check_each;
    };

    trial(unsigned seed, options o)
        : random_(seed), options_(o), pages_(o.first + o.count), model_(o.first, o.count) {}

    void run(unsigned operations) {
        add_some();
        for (step_ = 0; step_ < operations; ++step_) {
            operation();
            if (options_.exact) compare_blocks();
            if (step_ % options_.check_each == 0) compare_everything();
        }
        compare_everything();
        free_everything();
    }

  private:
    void must(bool holds, const char* what) {
        if (!holds) FAIL(what << ", operation " << step_);
    }
    u64 below(u64 limit) { return random_() % limit; }
    bool coin() { return random_() & 1; }

    /// Mostly short, at times long; mostly inside, at times beyond the end; at times empty.
    std::pair<u64, u64> range() {
        const u64 first = model_.first() + below(options_.count + 1);
        const u64 longest = u64{1} << below(std::bit_width(options_.count) + 1);
        u64 count = below(longest + 1);
        if (first + count > model_.end() && below(8)) count = model_.end() - first;
        return {first, count};
    }
    /// A run of pages in this state around a random place, or a part of it.
    std::pair<u64, u64> run_of(state wanted) {
        const u64 longest = below(4) ? 1 + below(80) : options_.count;
        u64 first = model_.first() + below(options_.count);
        for (u64 tries = 0; tries < 100 && model_.at(first).now != wanted; ++tries)
            first = model_.first() + below(options_.count);
        u64 count = 0;
        while (count < longest && first + count < model_.end() &&
               model_.at(first + count).now == wanted) {
            ++count;
        }
        return {first, count};
    }

    void add_some() {
        const bool clean = coin();
        auto [first, count] = below(3) ? run_of(state::absent) : range();
        const bool fine = model_.all(first, count, state::absent);
        must(pages_.add(first, count, clean) == fine, "add");
        if (!fine) return;
        model_.set(first, count, state::free);
        model_.set_clean(first, count, clean);
    }

    void operation() {
        switch (below(16)) {
            case 0:
                return add_some();
            case 1:
            case 2:
            case 3:
            case 4:
                return allocate();
            case 5:
            case 6:
                return take();
            case 7:
            case 8:
            case 9:
            case 10:
            case 11:
                return free();
            case 12:
            case 13:
                return set_clean();
            case 14:
                return take_dirty();
            default:
                return misuse();
        }
    }

    void allocate() {
        const unsigned most = std::bit_width(options_.count);
        const unsigned order = coin() ? below(3) : below(most + 2);
        const bool clean = coin();
        const u64 size = u64{1} << order;
        const auto got = pages_.allocate(order, clean ? want_clean : want_dirty);
        if (!got || options_.exact) return check_choice(got, order, clean);
        must(*got % size == 0, "an allocated block is not aligned");
        must(model_.all(*got, size, state::free), "allocated pages were not free");
        model_.set(*got, size, state::held);
    }
    void check_choice(std::optional<u64> got, unsigned order, bool clean) {
        std::optional<unsigned> smallest[2];
        const auto blocks = model_.free_blocks();
        for (const auto& b : blocks) {
            if (b.order >= order && (!smallest[b.clean] || b.order < *smallest[b.clean]))
                smallest[b.clean] = b.order;
        }
        if (!got) return must(!smallest[0] && !smallest[1], "allocate found none where one was");
        const u64 size = u64{1} << order;
        must(*got % size == 0, "an allocated block is not aligned");
        must(model_.all(*got, size, state::free), "allocated pages were not free");
        const bool from_clean = smallest[clean] ? clean : !clean;
        const auto source = std::find_if(blocks.begin(), blocks.end(), [&](const auto& b) {
            return *got >= b.first && *got < b.first + (u64{1} << b.order);
        });
        must(source != blocks.end() && source->clean == from_clean, "the wrong kind was taken");
        must(source->order == smallest[from_clean], "a larger block than necessary was split");
        if (smallest[clean]) must(model_.all_clean(*got, size) == clean, "not as preferred");
        model_.set(*got, size, state::held);
    }

    void take() {
        const auto [first, count] = below(3) ? run_of(state::free) : range();
        const bool fine = model_.all(first, count, state::free);
        must(pages_.take(first, count) == fine, "take");
        if (fine) model_.set(first, count, state::held);
    }
    void free() {
        const auto [first, count] = below(4) ? run_of(state::held) : range();
        const bool fine = model_.all(first, count, state::held), clean = coin();
        must(pages_.free(first, count, clean) == fine, "free");
        if (!fine) return;
        model_.set(first, count, state::free);
        model_.set_clean(first, count, clean);
    }
    void set_clean() {
        const auto [first, count] = coin() ? run_of(state::free) : range();
        const bool fine = model_.all_added(first, count), clean = coin();
        must(pages_.set_clean(first, count, clean) == fine, "set_clean");
        if (fine) model_.set_clean(first, count, clean);
        must(pages_.is_clean(first, count) == model_.all_clean(first, count), "is_clean");
    }
    void take_dirty() {
        const unsigned largest = below(std::bit_width(options_.count) + 3);
        std::optional<unsigned> expected;
        for (const auto& b : model_.free_blocks()) {
            if (!b.clean) expected = std::max(expected.value_or(0), std::min(b.order, largest));
        }
        const auto got = pages_.take_dirty(largest);
        must(got.has_value() == expected.has_value(), "take_dirty finds one if there is one");
        if (!got) return;
        const u64 size = u64{1} << got->order;
        must(got->order == *expected, "take_dirty takes the largest");
        must(got->first % size == 0, "a dirty block is not aligned");
        must(model_.all(got->first, size, state::free), "dirty pages taken were not free");
        must(!model_.all_clean(got->first, size), "take_dirty took a clean block");
        model_.set(got->first, size, state::held);
        if (coin()) return;
        must(pages_.free(got->first, size, true), "a zeroed block cannot be freed");
        model_.set(got->first, size, state::free);
        model_.set_clean(got->first, size, true);
    }
    void misuse() {
        const u64 first = model_.end() - below(2), count = 2 + below(5);
        for (const u64 bad : {count, ~u64{0}, 0 - first, 0 - first + count}) {
            if (model_.has(first, bad)) continue;
            must(!pages_.add(first, bad, true), "add beyond the end");
            must(!pages_.take(first, bad), "take beyond the end");
            must(!pages_.free(first, bad, true), "free beyond the end");
            must(!pages_.set_clean(first, bad, true), "set_clean beyond the end");
            must(!pages_.is_clean(first, bad), "is_clean beyond the end");
        }
        must(!pages_.free(model_.end() + 1 + below(1000), 1, true), "free far beyond the end");
        must(!pages_.allocate(buddy::max_order + 1 + below(60), want_clean), "too large an order");
    }

    void compare_blocks() {
        std::vector<u64> counts(buddy::max_order + 1);
        unsigned largest = 0;
        for (const auto& b : model_.free_blocks()) {
            ++counts[b.order];
            largest = std::max(largest, b.order);
        }
        must(blocks_of(pages_) == counts, "blocks are not merged as they should be");
        must(pages_.largest_free_order() == largest, "largest_free_order");
    }
    void compare_everything() {
        must(pages_.check(), "check");
        const u64 free = model_.count(state::free);
        must(pages_.free_pages() == free, "free_pages");
        must(pages_.available() == free + model_.count(state::held), "available");
        must(pages_.clean_free_pages() == model_.count(state::free, true), "clean_free_pages");
        for (u64 page = model_.first(); page < model_.end(); ++page)
            must(pages_.is_clean(page) == model_.at(page).clean, "is_clean of a page");
        compare_blocks();
    }
    void free_everything() {
        for (u64 page = model_.first(); page < model_.end();) {
            u64 count = 0;
            const state now = model_.at(page).now;
            while (page + count < model_.end() && model_.at(page + count).now == now) ++count;
            must(pages_.free(page, count, true) == (now == state::held), "free of a run");
            if (now == state::held) {
                model_.set(page, count, state::free);
                model_.set_clean(page, count, true);
            }
            page += count;
        }
        must(pages_.free_pages() == pages_.available(), "all is free in the end");
        compare_everything();
    }

    std::mt19937_64 random_;
    options options_;
    allocator pages_;
    model model_;
    unsigned step_ = 0;
};

}  // namespace

TEST_CASE("an empty buddy allocator has nothing to give", "[buddy]") {
    allocator pages(100);
    CHECK(pages.check());
    CHECK_FALSE(pages.allocate(0, want_clean));
    CHECK_FALSE(pages.allocate(0, want_dirty));
    CHECK_FALSE(pages.take_dirty(buddy::max_order));
    CHECK_FALSE(pages.take(0, 1));
    CHECK_FALSE(pages.free(0, 1, true));
    CHECK_FALSE(pages.set_clean(0, 1, true));
    CHECK_FALSE(pages.is_clean(0));
    CHECK(pages.available() == 0);
    CHECK(pages.largest_free_order() == 0);
    CHECK(blocks_of(pages) == std::vector<u64>(buddy::max_order + 1));

    buddy detached;
    CHECK_FALSE(detached.allocate(0, want_clean));
    CHECK_FALSE(detached.add(0, 1, true));
    CHECK(detached.check());
}

TEST_CASE("a range of no pages is fine if it begins in range", "[buddy]") {
    allocator pages(64, true);
    for (const u64 first : {u64{0}, u64{64}, u64{65}}) {
        const bool in_range = first <= 64;
        CHECK(pages.add(first, 0, true) == in_range);
        CHECK(pages.take(first, 0) == in_range);
        CHECK(pages.free(first, 0, false) == in_range);
        CHECK(pages.set_clean(first, 0, false) == in_range);
        CHECK(pages.is_clean(first, 0) == in_range);
    }
    CHECK(pages.free_blocks(6) == 1);
    CHECK(pages.clean_free_pages() == 64);
    CHECK(pages.check());
}

TEST_CASE("metadata stays below two bytes a page, and some words", "[buddy]") {
    CHECK(buddy::metadata_bytes(0) == 0);
    for (const u64 count : {u64{64}, u64{1000}, max_block, 2 * max_block + 17, buddy::max_pages})
        CHECK(buddy::metadata_bytes(count) <= 2 * count + 1024);
}

TEST_CASE("metadata becomes resident as pages are used", "[buddy]") {
    constexpr u64 limit = 64 * max_block;
    lazy_metadata metadata(limit);
    buddy pages;
    pages.attach(metadata.data(), limit);
    CHECK(metadata.resident() == 0);
    REQUIRE(pages.add(20 * max_block, max_block, true));
    // 24 pages of bitmaps, and one or two each of tags and of the set of the largest blocks.
    CHECK(metadata.resident() <= 28);
    for (unsigned i = 0; i < 100; ++i) REQUIRE(pages.allocate(0, want_clean));
    REQUIRE(pages.free(20 * max_block, 100, false));
    // The other half of each block that was split, in the tags and in the set of its order.
    CHECK(metadata.resident() <= 28 + 3 * buddy::max_order);
    CHECK(pages.free_blocks(buddy::max_order) == 1);
}

TEST_CASE("metadata beyond the added pages is not even read", "[buddy]") {
    constexpr u64 limit = 4 * max_block, half = max_block / 2;
    for (const u64 first : {2 * max_block, 2 * max_block + half}) {
        CAPTURE(first);
        lazy_metadata metadata(limit);
        buddy pages;
        pages.attach(metadata.data(), limit);
        REQUIRE(pages.add(first, half, true));
        // What comes last is a byte a page, and this is the buddy's.
        CHECK_FALSE(metadata.is_resident(metadata.size() - limit + (first ^ half)));
        CHECK(metadata.is_resident(metadata.size() - limit + first));
    }
}

TEST_CASE("blocks are aligned, split low half first, and merge again", "[buddy]") {
    allocator pages(16, true);
    CHECK(pages.allocate(0, want_clean) == 0);
    CHECK(pages.allocate(1, want_clean) == 2);
    CHECK(pages.allocate(0, want_clean) == 1);
    CHECK(pages.allocate(2, want_clean) == 4);
    CHECK(pages.largest_free_order() == 3);
    CHECK_FALSE(pages.allocate(4, want_clean));
    CHECK(pages.free_pages() == 8);
    CHECK(pages.check());
    CHECK(pages.free(0, 8, true));
    CHECK(pages.free_blocks(4) == 1);
    CHECK(pages.clean_free_pages() == 16);
    CHECK(pages.check());
}

TEST_CASE("an allocation that fails changes nothing", "[buddy]") {
    allocator pages(8, false);
    REQUIRE(pages.take(3, 1));
    const auto before = blocks_of(pages);
    CHECK_FALSE(pages.allocate(3, want_clean));
    CHECK_FALSE(pages.allocate(buddy::max_order + 1, want_clean));
    CHECK_FALSE(pages.allocate(40, want_dirty));
    CHECK(blocks_of(pages) == before);
    CHECK(pages.free_pages() == 7);
    CHECK(pages.check());
}

TEST_CASE("pages are added once", "[buddy]") {
    allocator pages(200);
    CHECK(pages.add(70, 60, true));
    CHECK_FALSE(pages.add(129, 2, true));
    CHECK_FALSE(pages.add(60, 11, true));
    CHECK_FALSE(pages.add(0, 200, false));
    CHECK_FALSE(pages.add(199, 2, false));
    CHECK_FALSE(pages.add(1, ~u64{0}, false));
    REQUIRE(pages.take(70, 60));
    CHECK_FALSE(pages.add(100, 1, true));
    CHECK(pages.available() == 60);
    CHECK(pages.add(130, 70, false));
    CHECK(pages.add(0, 70, false));
    CHECK(pages.available() == 200);
    CHECK(pages.free(70, 60, true));
    CHECK(pages.free_blocks(7) == 1);
    CHECK(pages.free_blocks(6) == 1);
    CHECK(pages.free_blocks(3) == 1);
    CHECK(pages.clean_free_pages() == 60);
    CHECK(pages.check());
}

TEST_CASE("what is added later merges with what is free", "[buddy]") {
    allocator pages(1024);
    // From outside in, so that merges look below and above.
    for (const u64 first : {960, 0, 448, 512, 64, 896}) REQUIRE(pages.add(first, 64, true));
    CHECK(pages.free_blocks(7) == 2);
    CHECK(pages.free_blocks(6) == 2);
    REQUIRE(pages.add(128, 320, false));
    REQUIRE(pages.add(576, 320, false));
    CHECK(pages.free_blocks(10) == 1);
    CHECK(pages.clean_free_pages() == 384);
    CHECK(pages.check());
}

TEST_CASE("take allocates exactly these pages or none", "[buddy]") {
    allocator pages(128, true);
    CHECK(pages.take(37, 55));
    CHECK(pages.free_pages() == 73);
    CHECK(pages.clean_free_pages() == 73);
    CHECK(pages.check());
    const auto before = blocks_of(pages);
    CHECK_FALSE(pages.take(36, 2));
    CHECK_FALSE(pages.take(91, 2));
    CHECK_FALSE(pages.take(0, 128));
    CHECK_FALSE(pages.take(127, 2));
    CHECK_FALSE(pages.take(100, ~u64{0} - 50));
    CHECK(blocks_of(pages) == before);
    CHECK(pages.take(0, 37));
    CHECK(pages.take(92, 36));
    CHECK(pages.free_pages() == 0);
    CHECK(pages.check());
    CHECK(pages.free(0, 128, true));
    CHECK(pages.free_blocks(7) == 1);
}

TEST_CASE("any part of what is allocated can be freed, and once", "[buddy]") {
    allocator pages(256);
    REQUIRE(pages.add(0, 192, false));
    REQUIRE(pages.allocate(7, want_dirty) == 0);
    REQUIRE(pages.allocate(6, want_dirty) == 128);
    // Over the border of two blocks and of two words.
    CHECK(pages.free(100, 60, false));
    CHECK(pages.free_pages() == 60);
    CHECK(pages.check());
    const auto before = blocks_of(pages);
    CHECK_FALSE(pages.free(100, 60, true));
    CHECK_FALSE(pages.free(99, 2, true));
    CHECK_FALSE(pages.free(159, 2, true));
    CHECK_FALSE(pages.free(191, 2, true));
    CHECK_FALSE(pages.free(192, 1, true));
    CHECK_FALSE(pages.free(255, 2, true));
    CHECK_FALSE(pages.free(256, 1, true));
    CHECK_FALSE(pages.free(160, ~u64{0} - 100, true));
    CHECK(blocks_of(pages) == before);
    CHECK(pages.clean_free_pages() == 0);
    CHECK_FALSE(pages.is_clean(99));
    CHECK(pages.free(160, 32, false));
    CHECK(pages.free(0, 100, false));
    CHECK(pages.free_blocks(7) == 1);
    CHECK(pages.free_blocks(6) == 1);
    CHECK(pages.check());
}

TEST_CASE("every second page held leaves no block of two", "[buddy]") {
    allocator pages(max_block, true);
    std::vector<u64> held;
    while (const auto page = pages.allocate(0, want_clean)) held.push_back(*page);
    REQUIRE(held.size() == max_block);
    for (u64 page = 0; page < max_block; page += 2) REQUIRE(pages.free(page, 1, true));
    CHECK(pages.largest_free_order() == 0);
    CHECK(pages.free_blocks(0) == max_block / 2);
    CHECK_FALSE(pages.allocate(1, want_clean));
    CHECK(pages.check());
    for (u64 page = 1; page < max_block; page += 2) REQUIRE(pages.free(page, 1, true));
    CHECK(pages.largest_free_order() == buddy::max_order);
    CHECK(pages.free_blocks(buddy::max_order) == 1);
    CHECK(pages.clean_free_pages() == max_block);
    CHECK(pages.check());
}

TEST_CASE("blocks of the largest order do not merge", "[buddy]") {
    allocator pages(2 * max_block + 3, false);
    CHECK(pages.free_blocks(buddy::max_order) == 2);
    CHECK(pages.free_blocks(1) == 1);
    CHECK(pages.free_blocks(0) == 1);
    CHECK(pages.check());
    CHECK(pages.take(max_block - 1, 2));
    CHECK(pages.largest_free_order() == buddy::max_order - 1);
    CHECK(pages.free(max_block - 1, 2, false));
    CHECK(pages.free_blocks(buddy::max_order) == 2);
    CHECK(pages.check());
}

TEST_CASE("clean and dirty blocks are found as preferred", "[buddy]") {
    allocator pages(12);
    REQUIRE(pages.add(0, 8, true));
    REQUIRE(pages.add(8, 4, false));
    CHECK(pages.allocate(0, want_dirty) == 8);
    CHECK(pages.allocate(0, want_clean) == 0);
    // The smallest clean block is split, not the smallest of all.
    CHECK(pages.allocate(1, want_clean) == 2);
    CHECK(pages.allocate(1, want_dirty) == 10);
    CHECK(pages.allocate(0, want_dirty) == 9);
    // Without dirty ones, a clean one, and the other way round.
    CHECK(pages.allocate(0, want_dirty) == 1);
    CHECK(pages.allocate(2, want_clean) == 4);
    REQUIRE(pages.free(5, 1, false));
    CHECK(pages.allocate(0, want_clean) == 5);
    CHECK(pages.free_pages() == 0);
    CHECK(pages.check());
}

TEST_CASE("the lowest block of the smallest order that will do is handed out", "[buddy]") {
    constexpr u64 limit = 10'000;  // a set of three levels for single pages
    allocator pages(limit, true);
    REQUIRE(pages.take(0, limit));
    for (const u64 page : {9'999, 10, 30, 4'321, 50, 20, 63, 64}) {
        REQUIRE(pages.free(page, 1, false));
        CHECK(pages.check());
    }
    REQUIRE(pages.free(4, 4, false));
    for (const u64 page : {10, 20, 30, 50, 63, 64, 4'321, 9'999, 4, 5})
        CHECK(pages.allocate(0, want_dirty) == page);
}

namespace {

/// Extents of all sizes come and go at random while so much is allocated. How many pages are free
/// in blocks of at least `order`; none if an extent was refused.
u64 pages_left_whole(u64 load, unsigned order) {
    constexpr u64 limit = max_block / 2;
    allocator pages(limit, true);
    std::mt19937_64 random(1);
    std::vector<std::pair<u64, u64>> held;
    u64 allocated = 0;
    const auto drop_any = [&] {
        std::swap(held[random() % held.size()], held.back());
        const auto [first, count] = held.back();
        held.pop_back();
        REQUIRE(pages.free(first, count, false));
        allocated -= count;
    };
    for (unsigned n = 0; n < 60'000; ++n) {
        if (!held.empty()) drop_any();
        while (allocated < load) {
            const u64 low = u64{1} << random() % 9, count = low + random() % low;
            const auto whole = static_cast<unsigned>(std::bit_width(count - 1));
            const auto first = pages.allocate(whole, want_dirty);
            if (!first) return 0;
            const u64 rest = (u64{1} << whole) - count;
            if (rest) REQUIRE(pages.free(*first + count, rest, false));
            held.emplace_back(*first, count);
            allocated += count;
        }
    }
    CHECK(pages.check());
    u64 left = 0;
    for (; order <= buddy::max_order; ++order) left += pages.free_blocks(order) << order;
    return left;
}

}  // namespace

TEST_CASE("large blocks stay whole while extents of all sizes come and go", "[buddy]") {
    constexpr u64 limit = max_block / 2, half = limit / 2;
    CHECK(pages_left_whole(half, 9) >= half / 3);  // of 2 MiB
    CHECK(pages_left_whole(limit * 6 / 10, 0) > 0);
}

TEST_CASE("clean pages are found again in a block that is not entirely clean", "[buddy]") {
    const u64 dirty = GENERATE(0, 63, 100, 255);
    CAPTURE(dirty);
    allocator pages(256, true);
    REQUIRE(pages.take(dirty, 1));
    REQUIRE(pages.free(dirty, 1, false));
    CHECK(pages.free_blocks(8) == 1);
    CHECK(pages.clean_free_pages() == 255);
    CHECK_FALSE(pages.is_clean(0, 256));
    CHECK(pages.check());

    SECTION("the half without the dirty page") {
        const auto half = pages.allocate(7, want_clean);
        REQUIRE(half);
        CHECK(pages.is_clean(*half, 128));
        CHECK(pages.clean_free_pages() == 127);
        CHECK(pages.check());
    }
    SECTION("the dirty page itself") {
        CHECK(pages.allocate(0, want_dirty) == dirty);
        CHECK(pages.clean_free_pages() == 255);
        for (unsigned order = 0; order < 8; ++order) CHECK(pages.free_blocks(order) == 1);
        CHECK(pages.check());
        REQUIRE(pages.free(dirty, 1, true));
        CHECK(pages.is_clean(0, 256));
        CHECK(pages.check());
    }
}

TEST_CASE("what is known of a page survives its allocation", "[buddy]") {
    allocator pages(4, true);
    REQUIRE(pages.allocate(2, want_clean) == 0);
    CHECK(pages.is_clean(0, 4));
    CHECK(pages.set_clean(1, 2, false));
    CHECK(pages.is_clean(0));
    CHECK_FALSE(pages.is_clean(1));
    CHECK_FALSE(pages.is_clean(2));
    CHECK(pages.is_clean(3));
    CHECK(pages.clean_free_pages() == 0);
    CHECK(pages.free(0, 4, true));
    CHECK(pages.is_clean(0, 4));
    CHECK(pages.check());
}

TEST_CASE("set_clean files free blocks anew", "[buddy]") {
    allocator pages(320);
    REQUIRE(pages.add(0, 256, false));
    REQUIRE(pages.take(128, 1));
    CHECK_FALSE(pages.set_clean(0, 257, true));
    CHECK(pages.clean_free_pages() == 0);
    CHECK(pages.set_clean(3, 253, true));
    CHECK(pages.clean_free_pages() == 252);
    CHECK(pages.is_clean(128));
    CHECK(pages.check());
    // Only [0, 128) still holds dirty pages.
    CHECK(pages.allocate(7, want_dirty) == 0);
    CHECK(pages.free(0, 128, false));
    CHECK(pages.set_clean(0, 128, true));
    CHECK_FALSE(pages.take_dirty(buddy::max_order));
    CHECK(pages.set_clean(200, 1, false));
    CHECK(pages.clean_free_pages() == 254);
    CHECK(pages.allocate(0, want_dirty) == 200);
    CHECK(pages.check());
}

TEST_CASE("a zeroer works through the largest blocks that are not entirely clean", "[buddy]") {
    allocator pages(1024, true);
    REQUIRE(pages.take(0, 1024));
    REQUIRE(pages.free(0, 64, false));
    REQUIRE(pages.free(512, 256, true));
    REQUIRE(pages.free(128, 32, false));
    REQUIRE(pages.free(300, 1, false));

    auto dirty = pages.take_dirty(buddy::max_order);
    REQUIRE(dirty);
    CHECK(dirty->first == 0);
    CHECK(dirty->order == 6);
    CHECK(pages.clean_free_pages() == 256);
    CHECK_FALSE(pages.take(0, 1));
    REQUIRE(pages.free(0, 64, true));
    CHECK(pages.clean_free_pages() == 320);

    dirty = pages.take_dirty(4);
    REQUIRE(dirty);
    CHECK((dirty->first == 128 || dirty->first == 144));
    CHECK(dirty->order == 4);
    REQUIRE(pages.free(dirty->first, 16, true));
    CHECK(pages.free_blocks(5) == 1);

    u64 zeroed = 0;
    while ((dirty = pages.take_dirty(4))) {
        REQUIRE(pages.free(dirty->first, u64{1} << dirty->order, true));
        zeroed += u64{1} << dirty->order;
        REQUIRE(pages.check());
    }
    CHECK(zeroed == 16 + 1);
    CHECK(pages.clean_free_pages() == pages.free_pages());
}

TEST_CASE("check sees what is not sound", "[buddy]") {
    std::vector<u64> metadata(buddy::metadata_bytes(64) / 8);
    buddy pages;
    pages.attach(metadata.data(), 64);
    REQUIRE(pages.add(0, 64, true));
    REQUIRE(pages.allocate(0, want_clean));
    REQUIRE(pages.check());
    // No bit may change unseen, but whether the page that is held is clean.
    unsigned unseen = 0;
    for (u64 bit = 0; bit < metadata.size() * 64; ++bit) {
        metadata[bit / 64] ^= u64{1} << bit % 64;
        unseen += pages.check();
        metadata[bit / 64] ^= u64{1} << bit % 64;
    }
    CHECK(unseen == 1);
    CHECK(pages.check());
}

TEST_CASE("random operations do what a vector of page states does", "[buddy]") {
    constexpr u64 counts[] = {1, 2, 3, 17, 63, 64, 65, 200, 333, 1000};
    // Ranges that begin anywhere and lie across a border of the largest order.
    constexpr u64 firsts[] = {0, 1, 31, 100, max_block - 1, max_block - 90, 2 * max_block - 333};
#ifdef __SANITIZE_ADDRESS__
    constexpr unsigned seeds = 35;  // four times as slow, and run without as well
#else
    constexpr unsigned seeds = 140;
#endif
    for (unsigned seed = 0; seed < seeds; ++seed) {
        const u64 count = counts[seed % std::size(counts)],
                  first = firsts[seed % std::size(firsts)];
        INFO("seed " << seed << ", pages from " << first << ", " << count << " of them");
        trial(seed, {.first = first, .count = count, .exact = true, .check_each = 16}).run(400);
    }
    SUCCEED();
}

TEST_CASE("random operations on more pages than the largest block has", "[buddy]") {
    const std::pair<u64, u64> ranges[] = {
        {0, 2 * max_block + 4711}, {12345, max_block + 1}, {max_block - 7, max_block + 20}};
    for (unsigned seed = 0; seed < 3; ++seed) {
        const auto [first, count] = ranges[seed % std::size(ranges)];
        INFO("seed " << seed << ", pages from " << first << ", " << count << " of them");
        trial(seed, {.first = first, .count = count, .exact = false, .check_each = 60}).run(180);
    }
    SUCCEED();
}
