import com.sun.net.httpserver.HttpServer;
import java.net.*;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;

/** An HTTP server under load in one process, with what the virtual machine uses signals and memory for. */
public class Serve {
    static int depth;
    static void recurse() { depth++; recurse(); }

    public static void main(String[] arguments) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        ExecutorService serving = Executors.newFixedThreadPool(4), asking = Executors.newFixedThreadPool(4);
        server.setExecutor(serving);
        server.createContext("/", exchange -> {
            byte[] answer = ("hello " + exchange.getRequestURI()).getBytes();
            exchange.sendResponseHeaders(200, answer.length);
            exchange.getResponseBody().write(answer);
            exchange.close();
        });
        server.start();
        String address = "http://127.0.0.1:" + server.getAddress().getPort() + "/";
        List<Future<Integer>> answers = new ArrayList<>();
        for (int i = 0; i < 300; i++) {
            URL url = new URL(address + i);
            answers.add(asking.submit(() -> url.openConnection().getInputStream().readAllBytes().length));
        }
        int sum = 0;
        for (Future<Integer> one : answers) sum += one.get();
        System.out.println("answers " + sum);
        asking.shutdown();
        server.stop(0);
        serving.shutdown();

        // A null pointer and the end of the stack are page faults to the virtual machine.
        int caught = 0;
        for (int i = 0; i < 20000; i++) {
            try { ((int[]) (i % 3 == 0 ? null : new int[1]))[0]++; } catch (NullPointerException e) { caught++; }
        }
        try { recurse(); } catch (StackOverflowError e) { System.out.println("deep " + (depth > 1000)); }
        System.out.println("caught " + caught);
        long hash = 0;
        for (int round = 0; round < 60; round++) {
            int[][] rows = new int[200][];
            for (int i = 0; i < rows.length; i++) {
                rows[i] = new int[1000];
                Arrays.fill(rows[i], i);
                hash = hash * 31 + Arrays.hashCode(rows[i]);
            }
        }
        System.gc();
        System.out.println("hash " + hash);
        Process child = new ProcessBuilder("sh", "-c", "read x; echo got $x; exit 5").start();
        child.getOutputStream().write("input\n".getBytes());
        child.getOutputStream().close();
        System.out.print(new String(child.getInputStream().readAllBytes()));
        System.out.println("child " + child.waitFor());
        Thread[] threads = new Thread[40];
        LongAdderHolder counter = new LongAdderHolder();
        for (int i = 0; i < threads.length; i++) (threads[i] = new Thread(() -> { for (int k = 0; k < 1000; k++) counter.add(); })).start();
        for (Thread thread : threads) thread.join();
        System.out.println("counted " + counter.value);
    }

    static class LongAdderHolder {
        long value;
        synchronized void add() { value++; }
    }
}
