#include "bench/harness.hpp"

#include <algorithm>
#include <utility>

namespace xos::bench {

namespace {

/// Registrations run before main(), in whatever order: the list is made by the first.
std::vector<benchmark>& list() {
    static std::vector<benchmark> benchmarks;
    return benchmarks;
}

cell_options the_options;
std::string the_remark;

}  // namespace

registration::registration(const benchmark& b) {
    list().push_back(b);
}

const std::vector<benchmark>& all_benchmarks() {
    return list();
}

const cell_options& options_of_cell() {
    return the_options;
}
void set_options_of_cell(const cell_options& options) {
    the_options = options;
}

void remark(const std::string& text) {
    the_remark = text;
}
std::string take_remark() {
    return std::exchange(the_remark, {});
}

std::string full_name(const benchmark& b) {
    return std::string(b.suite) + '/' + b.name;
}

bool needs_child(const benchmark& b) {
    return b.xos_way.where == place::child || b.xos_way.where == place::own_cell;
}

bool needs_cell(const benchmark& b) {
    const auto needs = [](const side& s) {
        return s.where == place::outside || s.where == place::inside;
    };
    // A child that becomes a cell cannot be one's.
    if (needs_child(b)) return false;
    return needs(b.xos_way) || (b.linux_way && needs(*b.linux_way)) ||
           std::any_of(b.others.begin(), b.others.end(),
                       [&](const alternative& other) { return needs(other.way); });
}

}  // namespace xos::bench
