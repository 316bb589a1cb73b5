// Compiled code, the collector, workers, WebAssembly, child processes, signals.
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const fib = n => n < 2 ? n : fib(n - 1) + fib(n - 2);
if (!isMainThread) {
  parentPort.postMessage(fib(workerData));
} else {
  console.log(fib(29));
  const kept = [];
  for (let i = 0; i < 3e5; i++) { const o = { i, s: 'x' + i }; if (i % 7 == 0) kept.push(o); }
  console.log(kept.map(o => o.s.length).reduce((a, b) => a + b));
  const bytes = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 7, 1, 96, 2, 127, 127, 1, 127, 3, 2, 1, 0,
                                7, 7, 1, 3, 97, 100, 100, 0, 0, 10, 9, 1, 7, 0, 32, 0, 32, 1, 106, 11]);
  console.log(new WebAssembly.Instance(new WebAssembly.Module(bytes)).exports.add(40, 2));
  console.log(new WebAssembly.Memory({ initial: 100, maximum: 1000 }).grow(10));
  try { (function deeper() { deeper(); })(); } catch (e) { console.log(e.message); }
  const results = new Map();
  for (const n of [18, 19, 20]) {
    new Worker(__filename, { workerData: n }).on('message', m => {
      results.set(n, m);
      if (results.size == 3) finish();
    });
  }
  function finish() {
    console.log([...results].sort());
    const { execFileSync, spawn } = require('child_process');
    console.log(execFileSync('sh', ['-c', 'echo from a child; exit 0']).toString());
    const cat = spawn('cat');
    cat.stdout.on('data', d => { console.log(String(d)); cat.kill('SIGKILL'); });
    cat.on('exit', (code, signal) => { console.log(code, signal); process.kill(process.pid, 'SIGUSR2'); });
    cat.stdin.write('through cat');
    process.on('SIGUSR2', s => { console.log(s); clearTimeout(forever); });
    const forever = setTimeout(() => {}, 1e6);
  }
}
