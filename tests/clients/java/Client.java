import java.time.Duration;
import java.util.concurrent.SynchronousQueue;
import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.Response;
import okhttp3.sse.EventSource;
import okhttp3.sse.EventSourceListener;
import okhttp3.sse.EventSources;

/**
 * okhttp-sse: {@code java Client URL} prints one line of JSON for each event that the library
 * dispatches: {"id", "event", "data"}. The library has no reconnection, so it is called in a loop
 * with the last id that it reported.
 */
public final class Client extends EventSourceListener {
  private static String last;

  private final SynchronousQueue<String> ends = new SynchronousQueue<>();

  public static void main(String[] arguments) throws InterruptedException {
    // By default okhttp gives up after 10 s without a byte.
    OkHttpClient http = new OkHttpClient.Builder().readTimeout(Duration.ZERO).build();
    EventSource.Factory factory = EventSources.createFactory(http);
    while (true) {
      Request.Builder request = new Request.Builder().url(arguments[0]);
      if (last != null) {
        request.header("Last-Event-ID", last);
      }
      Client client = new Client();
      factory.newEventSource(request.build(), client);
      System.err.println(client.ends.take());
      Thread.sleep(100);
    }
  }

  @Override
  public void onEvent(EventSource source, String id, String type, String data) {
    if (id != null) {
      last = id;
    }
    String name = type == null ? "message" : type;
    System.out.println(
        "{\"id\":" + quote(last) + ",\"event\":" + quote(name) + ",\"data\":" + quote(data) + "}");
  }

  @Override
  public void onClosed(EventSource source) {
    end("closed");
  }

  @Override
  public void onFailure(EventSource source, Throwable error, Response response) {
    end("failed: " + error + ", " + response);
  }

  private void end(String how) {
    try {
      ends.put(how);
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  private static String quote(String text) {
    if (text == null) {
      return "null";
    }
    StringBuilder quoted = new StringBuilder("\"");
    for (char c : text.toCharArray()) {
      if (c == '"' || c == '\\' || c < ' ' || c > '~') {
        quoted.append(String.format("\\u%04x", (int) c));
      } else {
        quoted.append(c);
      }
    }
    return quoted.append('"').toString();
  }
}
