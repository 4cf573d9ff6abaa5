import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;

/** A server with the one that comes with Java, and nothing for its end. */
public class Server {
    public static void main(String[] args) throws Exception {
        String generation = System.getenv("GAPLESS_GENERATION");
        byte[] body = "ok\n".getBytes("US-ASCII");
        HttpServer server = HttpServer.create(new InetSocketAddress(Integer.parseInt(args[0])), 0);
        server.createContext("/", exchange -> {
            exchange.getResponseHeaders().set("X-Generation", generation);
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
    }
}
