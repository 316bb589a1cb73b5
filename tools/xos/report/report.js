// Shows the results that the page holds.
"use strict";
const results = JSON.parse(document.getElementById("results").textContent);
const rows = results.rows.map((row, index) => ({ ...row, index, full: `${row.suite}/${row.name}`, run: runName(row) }));
const runs = [...new Set(rows.map((row) => row.run))];
const state = { run: runs[0], filter: "", kind: "", column: null, down: false };
const element = (id) => document.getElementById(id);

function runName(row) {
    return `${row.engine}, ${row.mode}${row.transport === "module" ? ", kernel module" : ""}`;
}

function figure(value) {
    if (value === null || value === undefined) return "–";
    const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
    return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}
function times(ratio) {
    const by = ratio >= 1 ? ratio : 1 / ratio;
    if (by < 1.005) return "the same";
    return `${by >= 100 ? by.toFixed(0) : by >= 10 ? by.toFixed(1) : by.toFixed(2)}× ${ratio >= 1 ? "faster" : "slower"}`;
}
function make(name, text, attributes = {}) {
    const made = document.createElement(name);
    made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
}

// ---- The first screen

const hasRatio = (row) => row.state === "measured" && row.ratio !== null;
const clearlyFaster = (row) => hasRatio(row) && row.ratio > 1.02;
const clearlySlower = (row) => hasRatio(row) && row.ratio < 0.98;

function showVerdict() {
    const all = rows.filter((row) => row.run === state.run && hasRatio(row)).sort((a, b) => b.ratio - a.ratio);
    const box = element("verdict");
    box.replaceChildren();
    const card = (large, small, kind) => {
        const made = document.createElement("div");
        made.append(make("b", large, { class: kind }), small);
        box.append(made);
    };
    card(`${all.filter(clearlyFaster).length} of ${all.length}`, "rows: libxos is faster", "faster");
    card(`${all.filter(clearlySlower).length} of ${all.length}`, "rows: libxos is slower", "slower");
    if (!all.length) return;
    const best = all[0], worst = all[all.length - 1];
    if (clearlyFaster(best)) card(times(best.ratio), `at best: ${best.full}`, "faster");
    if (clearlySlower(worst)) card(times(worst.ratio), `at worst: ${worst.full}`, "slower");
}

const meanings = {
    ns: "Times are of one machine. They tell what a user of that machine waits for, caches, memory and exits " +
        "included; they tell little about another machine, and nothing where an interval includes 1.",
    instructions: "Instructions are those of an emulated machine, Linux's and libxos's in the same one. They repeat " +
        "exactly, on any host, and tell how much work each side does. They do not tell how long it takes: an exit of " +
        "real hardware costs a thousand cycles or more beside its instructions, and so do misses of caches and TLBs; the " +
        "column of exits says how many there are.",
};

function showLead() {
    const row = rows.find((one) => one.run === state.run);
    element("lead").textContent = `An operation on Linux and the same with libxos, on ${state.run}; ` +
        (row && row.unit === "instructions" ? "faster means fewer instructions." : "in nanoseconds.");
    const units = Object.keys(meanings).filter((unit) => rows.some((one) => one.unit === unit));
    element("meaning").replaceChildren(...units.map((unit) => make("p", meanings[unit])));
}

function showEngines() {
    const box = element("engines");
    for (const run of runs) {
        const button = make("button", run, { type: "button", "aria-pressed": run === state.run });
        button.addEventListener("click", () => {
            state.run = run;
            for (const other of box.children) other.setAttribute("aria-pressed", other === button);
            showFirstScreen();
        });
        box.append(button);
    }
}

// ---- Charts

/// The ends of the intervals, and at each bar's end what it means.
const whiskers = {
    id: "whiskers",
    afterDatasetsDraw(chart) {
        const { ctx, scales: { x, y }, chartArea } = chart;
        const paint = chart.options.paint;
        ctx.save();
        ctx.font = "11px system-ui, sans-serif";
        ctx.textBaseline = "middle";
        chart.data.shown.forEach((row, i) => {
            const middle = y.getPixelForValue(i), half = Math.min(5, y.height / chart.data.shown.length / 4);
            const low = x.getPixelForValue(row.ci_low ?? row.ratio), high = x.getPixelForValue(row.ci_high ?? row.ratio);
            ctx.strokeStyle = ctx.fillStyle = paint.text;
            ctx.beginPath();
            for (const end of [low, high]) {
                ctx.moveTo(end, middle - half);
                ctx.lineTo(end, middle + half);
            }
            ctx.moveTo(low, middle);
            ctx.lineTo(high, middle);
            ctx.stroke();
            const text = times(row.ratio), width = ctx.measureText(text).width + 6;
            const right = row.ratio >= 1;
            let at = right ? high + 6 : low - width;
            // Where there is no room outside, it goes to the other side of 1.
            if (at + width > chartArea.right + 6 || at < chartArea.left) at = right ? x.getPixelForValue(1) - width : x.getPixelForValue(1) + 6;
            ctx.fillText(text, at, middle);
        });
        ctx.restore();
    },
};

function wrap(text, width) {
    const lines = [""];
    for (const word of text.split(" ")) {
        if (lines.at(-1) && lines.at(-1).length + word.length >= width) lines.push("");
        lines[lines.length - 1] += (lines.at(-1) ? " " : "") + word;
    }
    return lines;
}

const light = { text: "#1b1f24", dim: "#5b6470", line: "#d5d9df", faster: "#0b7a3e", slower: "#b4460b" };
function palette() {
    const style = getComputedStyle(document.documentElement);
    return Object.fromEntries(Object.keys(light).map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

const charts = {};
function draw(id, shown, label, paint = palette()) {
    charts[id]?.chart.destroy();
    const canvas = element(id), narrow = window.innerWidth < 640;
    const labels = shown.map((row) => wrap(label(row), narrow ? 24 : 90));
    // Every row has the room of the one with the most lines.
    const lines = Math.max(1, ...labels.map((one) => one.length));
    canvas.parentElement.style.height = `${60 + labels.length * (lines * 14 + 6)}px`;
    const ends = shown.flatMap((row) => [row.ratio, row.ci_low ?? row.ratio, row.ci_high ?? row.ratio]).filter((v) => v > 0);
    // Room for the words at the ends.
    const min = Math.min(0.5, ...ends) / 3, max = Math.max(2, ...ends) * 3;
    const chart = new Chart(canvas, {
        type: "bar",
        data: {
            labels,
            shown,
            datasets: [{
                data: shown.map((row) => [Math.min(1, row.ratio), Math.max(1, row.ratio)]),
                backgroundColor: shown.map((row) => (row.ratio >= 1 ? paint.faster : paint.slower)),
                barPercentage: 0.7,
            }],
        },
        options: {
            paint,
            indexAxis: "y",
            animation: false,
            responsive: true,
            maintainAspectRatio: false,
            scales: {
                x: {
                    type: "logarithmic", min, max,
                    title: { display: true, text: "Linux / libxos, logarithmic", color: paint.dim },
                    grid: { color: (context) => (context.tick?.value === 1 ? paint.text : paint.line) },
                    ticks: {
                        color: paint.dim, maxRotation: 0, autoSkipPadding: 14,
                        callback: (value) => (Number.isInteger(Math.log10(value) + 1e-9) || /^[125]/.test(String(value).replace(/^0\.0*/, "")) && value < 1000 && value > 0.01 ? `${value}` : ""),
                    },
                },
                y: { ticks: { color: paint.text, autoSkip: false, font: { size: narrow ? 10 : 12 } }, grid: { display: false } },
            },
            plugins: {
                legend: { display: false },
                tooltip: {
                    callbacks: {
                        title: (items) => shown[items[0].dataIndex].full,
                        label: ({ dataIndex }) => {
                            const row = shown[dataIndex];
                            return [`${times(row.ratio)}, 95 %: ${figure(row.ci_low)} to ${figure(row.ci_high)}`,
                                `Linux ${figure(row.linux)}, libxos ${figure(row.xos)} ${row.unit}`,
                                `${figure(row.exits_per_op)} exits`];
                        },
                    },
                },
            },
        },
        plugins: [whiskers],
    });
    charts[id] = { chart, again: (colours) => draw(id, shown, label, colours) };
}

function showFirstScreen() {
    showLead();
    showVerdict();
    let shown = rows.filter((row) => row.run === state.run && hasRatio(row) && row.ratio > 0);
    if (shown.some((row) => row.headline)) shown = shown.filter((row) => row.headline);
    shown.sort((a, b) => b.ratio - a.ratio);
    draw("headlines", shown, (row) => row.headline ?? row.full);
}

// ---- The table

const columns = [
    { title: "benchmark", of: (row) => row.full, text: true },
    { title: "engine", of: (row) => row.run },
    { title: "unit", of: (row) => row.unit },
    { title: "Linux", of: (row) => row.linux, number: true },
    { title: "libxos", of: (row) => row.xos, number: true },
    { title: "ratio", of: (row) => row.ratio, number: true },
    { title: "from", of: (row) => row.ci_low, number: true },
    { title: "to", of: (row) => row.ci_high, number: true },
    { title: "exits", of: (row) => row.exits_per_op, number: true },
    { title: "processor time, ratio", of: (row) => row.cpu_ratio, number: true },
    { title: "other ways", of: (row) => Object.entries(row.peers).map(([name, value]) => `${name} ${figure(value)}`).join(", ") },
    { title: "note", of: (row) => (row.state === "measured" ? "" : row.state === "failed" ? "FAILED: " : "left out: ") + row.note, text: true },
];

function wanted(row) {
    const text = `${row.full} ${row.what} ${row.note} ${row.run}`.toLowerCase();
    if (!state.filter.toLowerCase().split(/\s+/).every((word) => text.includes(word))) return false;
    if (state.kind === "faster") return clearlyFaster(row);
    if (state.kind === "slower") return clearlySlower(row);
    return state.kind !== "failed" || row.state !== "measured";
}

/// What there is not comes last, whichever way.
function inOrder(a, b) {
    if (state.column === null) return a.index - b.index;
    const of = columns[state.column].of, x = of(a), y = of(b);
    if (x === null || y === null) return (x === null) - (y === null) || a.index - b.index;
    const order = typeof x === "number" ? x - y : String(x).localeCompare(String(y));
    return (state.down ? -order : order) || a.index - b.index;
}

function showTable() {
    const shown = rows.filter(wanted).sort(inOrder);
    const body = document.querySelector("#rows tbody");
    body.replaceChildren(...shown.map((row) => {
        const line = document.createElement("tr");
        line.dataset.index = row.index;
        columns.forEach((column, i) => {
            const value = column.of(row);
            const cell = make("td", column.number ? figure(value) : value ?? "", { class: column.number ? "number" : column.text ? "text" : "" });
            cell.dataset.value = value === null ? "" : value;
            if (i === 0) cell.append(make("small", row.what));
            if (column.title === "ratio" && clearlyFaster(row)) cell.classList.add("faster");
            if (column.title === "ratio" && clearlySlower(row)) cell.classList.add("slower");
            line.append(cell);
        });
        return line;
    }));
    element("count").textContent = `${shown.length} of ${rows.length} rows`;
    const several = runs.length > 1;
    draw("chart", shown.filter((row) => hasRatio(row) && row.ratio > 0), (row) => (several ? `${row.full} (${row.run})` : row.full));
}

function showHead() {
    const line = document.createElement("tr");
    columns.forEach((column, i) => {
        const head = make("th", "", { scope: "col", "aria-sort": "none", class: column.number ? "number" : "" });
        const button = make("button", column.title, { type: "button" });
        button.addEventListener("click", () => {
            // The second click turns it round. Figures are asked for from the largest on.
            state.down = state.column === i ? !state.down : Boolean(column.number);
            state.column = i;
            for (const other of line.children) other.setAttribute("aria-sort", "none");
            head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
            showTable();
        });
        head.append(button);
        line.append(head);
    });
    document.querySelector("#rows thead").replaceChildren(line);
}

function showFacts() {
    for (const run of results.runs) {
        const list = document.createElement("dl");
        const fact = (name, value) => {
            if (value === "" || value === null || value === undefined) return;
            list.append(make("dt", name), make("dd", String(value)));
        };
        const { machine = {} } = run;
        fact("engine", `${run.engine}, mode ${run.mode}, calls by ${run.transport}`);
        fact("when", run.date);
        fact("libxos", `${run.version}, commit ${run.commit}`);
        fact("options", (run.options ?? []).join(" "));
        fact("rounds", `${run.rounds}${run.quick ? ", quick: less certain" : ""}${run.interrupted ? ", interrupted" : ""}`);
        fact("processor", `${machine.processor}; ${machine.processors}${machine.virtual ? ", virtual" : ""}`);
        fact("memory", `${figure(machine.memory_mib)} MiB`);
        fact("kernel", machine.kernel);
        fact("governor", machine.governor);
        fact("load before", machine.load);
        const mitigated = Object.entries(machine.mitigations ?? {}).map(([name, how]) => `${name}: ${how}`);
        fact("mitigations", mitigated.join("; "));
        element("facts").append(list);
    }
}

showEngines();
showFirstScreen();
showHead();
showTable();
showFacts();
element("filter").addEventListener("input", (event) => {
    state.filter = event.target.value;
    showTable();
});
element("kind").addEventListener("change", (event) => {
    state.kind = event.target.value;
    showTable();
});
const redraw = (colours) => Object.values(charts).forEach(({ again }) => again(colours));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());
addEventListener("beforeprint", () => redraw(light));
addEventListener("afterprint", () => redraw());
