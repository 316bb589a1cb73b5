// An HTTP server and a load of requests on it, in one process.
const http = require('http');
const total = 300;
const server = http.createServer((request, response) => {
  let body = '';
  request.on('data', d => body += d);
  request.on('end', () => response.end(request.url + ' ' + body.length));
});
server.listen(0, '127.0.0.1', () => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 16 });
  let done = 0, length = 0;
  for (let i = 0; i < total; i++) {
    const options = { port: server.address().port, path: '/' + i, agent, method: 'POST' };
    http.request(options, response => {
      response.on('data', d => length += d.length);
      response.on('end', () => {
        if (++done < total) return;
        console.log(done, length);
        agent.destroy();
        server.close();
      });
    }).end('x'.repeat(i));
  }
});
