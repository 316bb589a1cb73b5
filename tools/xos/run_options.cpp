// The options of `xos run`, and where the program's own begin.
#include <algorithm>
#include <memory>
#include <regex>

#include "tools/xos/commands.hpp"
#include "tools/xos/run.hpp"

namespace xos::tool {

namespace {

std::string check_stats(const std::string& value) {
    const bool json = value.starts_with(json_prefix) && value.size() > json_prefix.size();
    return is_off(value) || is_plain(value) || json ? "" : value + " is not json:FILE";
}

/// What is wrong with a value of --pager, or nothing.
std::string is_pager(const std::string& text) {
    static const std::regex known("system|huge|demand|populate|window(:[1-9][0-9]{0,4})?");
    if (std::regex_match(text, known)) return "";
    return "is none of system, huge, demand, populate, window[:PAGES] (up to 99999)";
}

/// Shortens the command line by what follows the program. Those words are the program's as they
/// are; CLI11 would take an option among them for its own, and make two of "[a,b]".
std::vector<std::string> take_arguments(CLI::App& command, int& argc, char** argv) {
    if (argc < 2 || argv[1] != command.get_name()) return {};
    int i = 2;
    for (; i < argc; i++) {
        const std::string_view word = argv[i];
        if (word == "--") i++;
        if (word == "--" || word.size() < 2 || word.front() != '-') break;
        const CLI::Option* option = command.get_option_no_throw(argv[i]);
        if (option && option->get_items_expected_min() > 0) i++;  // its value
    }
    const int after = std::min(i + 1, argc);
    const std::vector<std::string> arguments(argv + after, argv + argc);
    argc = after;
    return arguments;
}

}  // namespace

void add_run(CLI::App& app, command_result& result, int& argc, char** argv) {
    auto options = std::make_shared<run_options>();
    CLI::App* command = app.add_subcommand("run", "Run a program in a cell");
    command->add_option("--ring", options->ring, "Where the program runs: auto, 0, 3, or pvm")
        ->check(CLI::IsMember({"auto", "0", "3", "pvm", "ring0", "ring3"}))
        ->envname("XOS_MODE")
        ->capture_default_str();
    command
        ->add_option("--transport", options->transport,
                     "How system calls reach Linux: auto, exit, or module (the kernel module)")
        ->check(CLI::IsMember({"auto", "exit", "module"}))
        ->envname("XOS_TRANSPORT")
        ->capture_default_str();
    command
        ->add_option("--event-loops", options->event_loops,
                     "batched: what a program reads from and writes to TCP connections after "
                     "epoll_wait goes together, in one crossing; plain: each call by itself")
        ->check(CLI::IsMember({"batched", "plain"}))
        ->envname("XOS_EVENT_LOOPS")
        ->capture_default_str();
    command
        ->add_option(
            "--malloc", options->malloc,
            "The program's malloc: system, its own; or jemalloc, whose memory is then mapped "
            "without exits")
        ->check(CLI::IsMember({"system", "jemalloc"}))
        ->envname("XOS_MALLOC")
        ->capture_default_str();
    command
        ->add_option("--loader", options->loader,
                     "How the program gets into the cell: preload, by the dynamic linker; own, by "
                     "libxos's loader; auto: preload where that reaches the program")
        ->check(CLI::IsMember({"auto", "own", "preload"}))
        ->envname("XOS_LOADER")
        ->capture_default_str();
    command
        ->add_option("--follow", options->follow,
                     "Which programs that it executes run in cells, too: all or none")
        ->check(CLI::IsMember({"all", "none"}))
        ->envname("XOS_FOLLOW")
        ->capture_default_str();
    command
        ->add_option("--fallback", options->fallback,
                     "When there can be no cell, such as without rights to /dev/kvm: fail, or run "
                     "the program outside, natively; auto: fail, but programs that it executes run "
                     "outside")
        ->check(CLI::IsMember({"auto", "fail", "outside"}))
        ->envname("XOS_FALLBACK")
        ->capture_default_str();
    command
        ->add_option("--mem", options->memory,
                     "Bytes of anonymous memory to serve inside, such as 512M; 0: none "
                     "(default: half of the machine's)")
        ->envname("XOS_MEM");
    command
        ->add_option("--vcpus", options->vcpus,
                     "How many threads the program can have at a time, up to 4096 (default: 1024)")
        ->check(CLI::Range(1, 4096))
        ->envname("XOS_VCPUS");
    command
        ->add_option("--pager", options->pager,
                     "How that memory becomes resident: system, huge, demand, populate or "
                     "window[:PAGES]")
        ->check(is_pager)
        ->envname("XOS_PAGER");
    // Flags, so that the word behind one is never taken for its value.
    command
        ->add_flag("--stats", options->stats,
                   "At the end of each process print entries, exits, system calls and faults to "
                   "stderr; --stats=json:FILE appends them to FILE, an object a line")
        ->check(check_stats)
        ->envname("XOS_STATS");
    command
        ->add_flag("--trace", options->trace,
                   "Log every system call to stderr; --trace=FILE appends to FILE")
        ->envname("XOS_TRACE");
    command
        ->add_flag("--quiet", options->quiet,
                   "No line on stderr about a system call that cannot be supported")
        ->envname("XOS_QUIET");
    auto name = std::make_shared<std::string>();
    command->add_option("program", *name, "The program; what follows are its arguments")
        ->required();
    const std::vector<std::string> arguments = take_arguments(*command, argc, argv);
    command->callback([options, name, arguments, &result] {
        options->program = {*name};
        options->program.insert(options->program.end(), arguments.begin(), arguments.end());
        result.status = run(*options);
    });
}

}  // namespace xos::tool
