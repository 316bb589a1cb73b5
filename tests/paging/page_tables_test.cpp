// The tree is judged by a page walker of the tests, never by page_tables itself.
#include "libxos/paging/page_tables.hpp"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tests/paging/page_walk.hpp"

namespace {

using namespace xos;
using namespace xos::paging;
using namespace page_walk;

/// Hands out at most `limit` pages, at scattered addresses, and fails a test that uses a page
/// it does not have.
class counted_frames {
  public:
    explicit counted_frames(unsigned bits) : bits_(bits) {}

    gpa allocate() {
        if (in_use_.size() >= limit) return gpa{};
        gpa page(next_wide ? u64{1} << bits_ : (scatter_() % ((u64{1} << bits_) / kib4)) * kib4);
        if (page == gpa{} || in_use_.contains(page.value)) return allocate();
        in_use_[page.value] = std::make_unique<table_page>();
        return page;
    }
    void release(gpa page) {
        const auto found = in_use_.find(page.value);
        if (found == in_use_.end()) FAIL("a page released that is not in use");
        for (const arch::entry& e : *found->second)
            if (e.bits != 0) FAIL("a page released that is not zeroed");
        in_use_.erase(found);
        ++released;
    }
    arch::entry* table(gpa page) const {
        const auto found = in_use_.find(page.value);
        if (found == in_use_.end()) FAIL("a table page used that is not in use");
        return found->second->data();
    }
    std::size_t in_use() const { return in_use_.size(); }

    std::size_t limit = ~std::size_t{0};
    std::size_t released = 0;
    bool next_wide = false;

  private:
    using table_page = std::array<arch::entry, 512>;
    unsigned bits_;
    generator scatter_{7};
    std::unordered_map<u64, std::unique_ptr<table_page>> in_use_;
};

struct range {
    u64 start;
    u64 length;

    bool is_valid() const {
        const auto end = static_cast<unsigned __int128>(start) + length;
        if (start < lower_end) return end <= lower_end;
        return start >= upper_start && end <= static_cast<unsigned __int128>(1) << 64;
    }
    u64 last() const { return start + length - 1; }
};

/// What the tree ought to be: its leaves by first address, and which tables exist.
class model {
  public:
    using table_id = std::pair<unsigned, u64>;  ///< level, and the address divided by its span

    std::map<u64, cpu_leaf> leaves;
    std::set<table_id> tables;

    static table_id table_of(unsigned l, u64 address) { return {l, address / bytes_of(l + 1)}; }

    std::map<u64, cpu_leaf>::iterator find(u64 address) {
        auto next = leaves.upper_bound(address);
        if (next == leaves.begin()) return leaves.end();
        --next;
        return address - next->first < bytes_of(next->second.level) ? next : leaves.end();
    }
    bool overlaps(range r) {
        if (find(r.start) != leaves.end()) return true;
        const auto next = leaves.lower_bound(r.start);
        return next != leaves.end() && next->first <= r.last();
    }
    void add_path(u64 address, unsigned down_to) {
        for (unsigned l = 3; l >= down_to; --l) tables.insert(table_of(l, address));
    }
    void map(range r, u64 frame, u64 flags, unsigned largest) {
        for (u64 done = 0; done != r.length;) {
            const u64 at = r.start + done;
            unsigned l = largest;
            while (l > 1 && (at % bytes_of(l) || (frame + done) % bytes_of(l) ||
                             r.length - done < bytes_of(l) || tables.contains(table_of(l - 1, at))))
                --l;
            leaves[at] = {at, l, frame + done, flags | 1 | (l > 1 ? 0x80 : 0)};
            add_path(at, l);
            done += bytes_of(l);
        }
    }
    void ensure_tables(range r) {
        for (u64 at = r.start & ~(mib2 - 1);; at += mib2) {
            add_path(at, 1);
            if (r.last() - at < mib2) return;
        }
    }
    void split_at(u64 address) {
        for (auto it = find(address); it != leaves.end() && it->first != address;
             it = find(address)) {
            const cpu_leaf whole = it->second;
            const unsigned l = whole.level - 1;
            for (u64 i = 0; i != 512; ++i) {
                const u64 offset = i * bytes_of(l);
                leaves[whole.page + offset] = {whole.page + offset, l, whole.frame + offset,
                                               l == 1 ? whole.flags & ~u64{0x80} : whole.flags};
            }
            tables.insert(table_of(l, whole.page));
        }
    }
    void split_edges(range r) {
        if (r.length == 0) return;
        split_at(r.start);
        split_at(r.last() + 1);
    }
    auto first_in(range r) {
        const auto it = find(r.start);
        return it != leaves.end() ? it : leaves.lower_bound(r.start);
    }
    std::vector<cpu_leaf> all_leaves() const {
        std::vector<cpu_leaf> out;
        for (const auto& [page, l] : leaves) out.push_back(l);
        return out;
    }
};

constexpr u64 protection_bits = 0x8000'0000'0000'0006;

protection random_protection(generator& r) {
    return static_cast<protection>(r() & protection_bits);
}

class trial {
  public:
    trial(u64 seed, unsigned bits, unsigned largest)
        : random_(seed),
          bits_(bits),
          largest_(largest),
          frames_(bits),
          tables_(frames_, {.physical_bits = bits, .largest_leaf = static_cast<level>(largest)}),
          cpu_(frames_, bits) {
        REQUIRE(tables_.create() == status::ok);
    }

    void run(unsigned operations) {
        for (unsigned i = 0; i != operations && expected_.leaves.size() <= most_leaves; ++i) {
            const std::size_t available = pick(random_, 3) ? 1000 : pick(random_, 4);
            frames_.limit = frames_.in_use() + available;
            step();
            if (frames_.in_use() != expected_.tables.size() + 1) FAIL("table pages lost or kept");
            if (i % 8 == 0) compare();
            probe();
        }
        compare();
    }

  private:
    void step() {
        switch (pick(random_, 9)) {
            case 0:
            case 1:
            case 2:
                return map();
            case 3:
            case 4:
                return protect();
            case 5:
                return ensure_tables();
            case 6:
                return touch();
            case 7:
                return unmap();
            default:
                return list();
        }
    }

    /// Few places, close to one another and to every edge of the address space.
    u64 random_address() {
        const u64 anchors[] = {0, 0x80'0000'0000 - 2 * gib1, lower_end - 4 * gib1, upper_start,
                               0 - 4 * gib1};
        return one_of(random_, anchors) + pick(random_, 4) * gib1 +
               one_of(random_, {0, 0, 1, 2, 511}) * mib2 +
               one_of(random_, {0, 0, 0, 1, 2, 255, 510, 511}) * kib4;
    }
    range random_range() {
        const u64 start = random_address();
        switch (pick(random_, 9)) {
            case 0:
                return {start, pick(random_, 1200) * kib4};
            case 1:
            case 2:
                return {start, (1 + pick(random_, 3)) * mib2};
            case 3:
                return {start & ~(mib2 - 1), (1 + pick(random_, 700)) * mib2};
            case 4:
                return {start & ~(gib1 - 1), (1 + pick(random_, 2)) * gib1};
            case 5:
                return {start, mib2 - start % mib2};
            default:
                return {start, (1 + pick(random_, 8)) * kib4};
        }
    }

    void expect_unchanged() {
        if (frames_.in_use() != expected_.tables.size() + 1) FAIL("a failed edit kept pages");
        compare();
    }
    /// True if the edit was to succeed; checks that a refused one changed nothing.
    bool settle(status got, status expected) {
        CHECK(got == expected);
        if (got != expected) FAIL("wrong status");
        if (got != status::ok) expect_unchanged();
        return got == status::ok;
    }
    status affordable(const model& after) const {
        const bool enough = after.tables.size() + 1 <= frames_.limit;
        return enough ? status::ok : status::out_of_frames;
    }

    void map() {
        const range r = random_range();
        const u64 alignments[] = {gib1, gib1, mib2, kib4};
        u64 align = one_of(random_, alignments);
        if (r.length > 16 * mib2 && align == kib4) align = mib2;
        const u64 limit = u64{1} << bits_;
        u64 frame = (pick(random_, limit) & ~(align - 1)) + r.start % align;
        if (pick(random_, 10) == 0) frame = limit + r.start % align - pick(random_, 2) * align;
        unsigned largest = 1 + static_cast<unsigned>(pick(random_, 3));
        if (r.length > 16 * mib2 && largest == 1) largest = 2;
        const protection p = random_protection(random_);

        model after = expected_;
        status expected = status::ok;
        if (!r.is_valid()) {
            expected = status::non_canonical;
        } else if (frame >= limit || frame + r.length > limit) {
            expected = status::frame_too_wide;
        } else if (r.length != 0 && expected_.overlaps(r)) {
            expected = status::occupied;
        } else if (r.length != 0) {
            after.map(r, frame, static_cast<u64>(p), std::min(largest, largest_));
            expected = affordable(after);
        }
        const status got =
            tables_.map(gva(r.start), gpa(frame), r.length, p, static_cast<level>(largest));
        if (settle(got, expected)) expected_ = std::move(after);
    }

    void unmap() {
        const range r = random_range();
        model after = expected_;
        status expected = status::non_canonical;
        if (r.is_valid()) {
            after.split_edges(r);
            expected = affordable(after);
            for (auto it = after.leaves.lower_bound(r.start);
                 r.length && it != after.leaves.end() && it->first <= r.last();)
                it = after.leaves.erase(it);
        }
        if (settle(tables_.unmap(gva(r.start), r.length), expected)) expected_ = std::move(after);
    }

    void protect() {
        const range r = random_range();
        const u64 p = static_cast<u64>(random_protection(random_));
        model after = expected_;
        status expected = status::non_canonical;
        if (r.is_valid()) {
            after.split_edges(r);
            expected = affordable(after);
            for (auto it = after.leaves.lower_bound(r.start);
                 r.length && it != after.leaves.end() && it->first <= r.last(); ++it) {
                const u64 old = it->second.flags;
                it->second.flags = (old & ~protection_bits) | p;
            }
        }
        const status got = tables_.protect(gva(r.start), r.length, static_cast<protection>(p));
        if (!settle(got, expected)) return;
        expected_ = std::move(after);
    }

    void ensure_tables() {
        range r = random_range();
        r.length = std::min(r.length, 8 * mib2);  // a table for every 2 MiB
        model after = expected_;
        status expected = r.is_valid() ? status::ok : status::non_canonical;
        if (r.is_valid() && r.length != 0) {
            after.ensure_tables(r);
            expected = affordable(after);
            for (auto it = expected_.first_in(r);
                 it != expected_.leaves.end() && it->first <= r.last(); ++it)
                if (it->second.level > 1) expected = status::occupied;
        }
        if (!settle(tables_.ensure_tables(gva(r.start), r.length), expected)) return;
        expected_ = std::move(after);
        for (u64 at = r.start; r.length && at - r.start < r.length; at += mib2)
            if (!tables_.slot_at(gva(at), arch::level::page_4k)) FAIL("ensure_tables left no slot");
    }

    void touch() {
        for (unsigned i = 0; i != 16 && !expected_.leaves.empty(); ++i) {
            const u64 address = leaf_near(random_address()) + pick(random_, gib1);
            const u64 set = pick(random_, 2) ? 0x60 : 0x20;
            const auto it = expected_.find(address);
            if (it != expected_.leaves.end()) it->second.flags |= set;
            cpu_.walk(tables_.root(), address, set);
        }
    }
    u64 leaf_near(u64 address) {
        const auto it = expected_.leaves.lower_bound(address);
        return it == expected_.leaves.end() ? expected_.leaves.begin()->first : it->first;
    }

    void list() {
        const range r = random_range();
        std::vector<cpu_leaf> expected, visited;
        const status got = tables_.for_each_leaf(
            gva(r.start), r.length, [&](const leaf_mapping& l) { visited.push_back(plain(l)); });
        if (!settle(got, r.is_valid() ? status::ok : status::non_canonical)) return;
        for (auto it = expected_.first_in(r);
             r.length && it != expected_.leaves.end() && it->first <= r.last(); ++it)
            expected.push_back(it->second);
        if (expected != visited) FAIL("for_each_leaf visited other leaves than are mapped");
    }

    static cpu_leaf plain(const leaf_mapping& l) {
        return {l.page.value, static_cast<unsigned>(l.size), l.frame.value,
                static_cast<u64>(l.flags)};
    }

    void compare() const {
        const auto seen = cpu_.all_leaves(tables_.root());
        const auto expected = expected_.all_leaves();
        if (seen == expected) return;
        const auto at = std::mismatch(seen.begin(), seen.end(), expected.begin(), expected.end());
        if (at.first != seen.end()) UNSCOPED_INFO("the CPU sees " << *at.first);
        if (at.second != expected.end()) UNSCOPED_INFO("expected " << *at.second);
        FAIL("the CPU sees other leaves than expected");
    }

    void probe() {
        for (unsigned i = 0; i != 8; ++i) {
            const u64 address = random_address() + pick(random_, 2) * pick(random_, mib2);
            const auto it = expected_.find(address);
            const bool mapped = it != expected_.leaves.end();
            if (mapped) it->second.flags |= 0x20;
            const auto seen = cpu_.walk(tables_.root(), address);
            if (seen.has_value() != mapped || (mapped && *seen != it->second))
                FAIL("the CPU translates " << std::hex << address << " otherwise than expected");
            const auto asked = tables_.query(gva(address));
            if (asked.has_value() != mapped || (mapped && plain(*asked) != it->second))
                FAIL("query answers otherwise than the CPU");
            check_slot(address, seen);
        }
    }
    void check_slot(u64 address, const std::optional<cpu_leaf>& seen) {
        arch::entry* const slot = tables_.slot_at(gva(address), arch::level::page_4k);
        const bool exists = expected_.tables.contains(model::table_of(1, address));
        if ((slot != nullptr) != exists) FAIL("slot_at: wrong about the table");
        if (slot == nullptr || seen) return;
        const u64 page = address & ~(kib4 - 1);
        const u64 frame = pick(random_, (u64{1} << bits_) / kib4) * kib4;
        arch::store(*slot, leaf_entry(gpa(frame), protection::writable | protection::user));
        const auto now = cpu_.walk(tables_.root(), address);
        if (now != cpu_leaf{page, 1, frame, 0x27}) FAIL("slot_at: not the slot the CPU reads");
        arch::store(*slot, arch::entry{});
    }

    static constexpr std::size_t most_leaves = 2000;  // the model is copied at every edit

    generator random_;
    unsigned bits_;
    unsigned largest_;
    counted_frames frames_;
    page_tables<counted_frames> tables_;
    cpu<counted_frames> cpu_;
    model expected_;
};

struct small_tree {
    explicit small_tree(unsigned bits = 40, level largest = level::page_1g)
        : frames(bits), tables(frames, {.physical_bits = bits, .largest_leaf = largest}) {
        REQUIRE(tables.create() == status::ok);
    }
    status map(u64 at, u64 frame, u64 length, level largest = level::page_1g) {
        return tables.map(gva(at), gpa(frame), length, protection::user, largest);
    }
    counted_frames frames;
    page_tables<counted_frames> tables;
};

}  // namespace

TEST_CASE("random edits leave the tree that the model predicts", "[paging]") {
#ifdef __SANITIZE_ADDRESS__
    constexpr u64 seeds = 51;  // each width with each largest leaf; run without as well
#else
    constexpr u64 seeds = 816;
#endif
    for (u64 seed = 0; seed != seeds; ++seed) {
        const unsigned bits = 36 + static_cast<unsigned>(seed % 17);
        const unsigned largest = seed % 3 ? 3 : 2;
        INFO("seed " << seed << ", " << bits << " physical bits, largest leaf level " << largest);
        trial(seed, bits, largest).run(200);
    }
    SUCCEED();
}

TEST_CASE("a frame beyond the physical width is refused", "[paging]") {
    for (unsigned bits = 36; bits <= 52; ++bits) {
        INFO(bits << " bits");
        const u64 limit = u64{1} << bits;
        small_tree t(bits);
        CHECK(t.map(0, limit, kib4) == status::frame_too_wide);
        CHECK(t.map(0, limit - kib4, 2 * kib4) == status::frame_too_wide);
        CHECK(t.map(0, limit - gib1, 2 * gib1) == status::frame_too_wide);
        CHECK(t.map(0, 0 - kib4, kib4) == status::frame_too_wide);
        CHECK(t.frames.in_use() == 1);
        CHECK(t.map(gib1, limit - gib1, gib1) == status::ok);
        CHECK(t.map(kib4, limit - kib4, kib4) == status::ok);
        CHECK(cpu(t.frames, bits).walk(t.tables.root(), kib4)->frame == limit - kib4);
    }
}

TEST_CASE("a table page beyond the physical width is refused and given back", "[paging]") {
    counted_frames frames(40);
    page_tables tables(frames, {.physical_bits = 40, .largest_leaf = level::page_2m});
    frames.next_wide = true;
    CHECK(tables.create() == status::frame_too_wide);
    CHECK(tables.root() == gpa{});
    CHECK(frames.in_use() == 0);
}

TEST_CASE("without a tree every edit says so", "[paging]") {
    counted_frames frames(40);
    page_tables tables(frames, {});
    CHECK(tables.map(gva{}, gpa{}, kib4, protection::none, level::page_4k) == status::not_mapped);
    CHECK(tables.protect(gva{}, kib4, protection::none) == status::not_mapped);
    CHECK_FALSE(tables.query(gva{}));
    CHECK(tables.slot_at(gva{}, arch::level::page_4k) == nullptr);
}

TEST_CASE("misaligned arguments are refused", "[paging]") {
    small_tree t;
    CHECK(t.map(8, 0, kib4) == status::misaligned);
    CHECK(t.map(0, 8, kib4) == status::misaligned);
    CHECK(t.map(0, 0, 8) == status::misaligned);
    CHECK(t.tables.ensure_tables(gva(8), kib4) == status::misaligned);
    CHECK(t.tables.protect(gva(8), kib4, protection::user) == status::misaligned);
    CHECK(t.tables.protect(gva(0), 8, protection::user) == status::misaligned);
    CHECK(t.frames.in_use() == 1);
}

TEST_CASE("a range stays inside one canonical half", "[paging]") {
    small_tree t;
    CHECK(t.map(lower_end, 0, kib4) == status::non_canonical);
    CHECK(t.map(upper_start - kib4, 0, kib4) == status::non_canonical);
    CHECK(t.map(lower_end - kib4, 0, 2 * kib4) == status::non_canonical);
    CHECK(t.map(0 - kib4, 0, 2 * kib4) == status::non_canonical);
    CHECK(t.map(lower_end - kib4, 0, upper_start - lower_end + 2 * kib4) == status::non_canonical);
    CHECK(t.tables.protect(gva(0), lower_end + kib4, protection::user) == status::non_canonical);
    CHECK(t.frames.in_use() == 1);
    CHECK(t.map(lower_end - mib2, mib2, mib2) == status::ok);
    CHECK(t.map(upper_start, 0, kib4) == status::ok);
    CHECK(t.map(0 - kib4, kib4, kib4) == status::ok);
    const cpu c(t.frames, 40);
    CHECK(c.walk(t.tables.root(), lower_end - 1) == cpu_leaf{lower_end - mib2, 2, mib2, 0xa5});
    CHECK_FALSE(c.walk(t.tables.root(), lower_end - mib2 - 1));
    CHECK(t.tables.query(gva(0 - u64{1}))->page == gva(0 - kib4));
    CHECK(t.tables.query(gva(upper_start))->page == gva(upper_start));
    CHECK_FALSE(t.tables.query(gva(lower_end)));
    CHECK(t.tables.slot_at(gva(lower_end), arch::level::page_4k) == nullptr);
}
