import java.io.IOException;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.atomic.LongAdder;
import org.apache.avro.Schema;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.WindowStore;

/**
 * Kafka Streams, DSL: windows of 60 s every 10 s for each (service, endpoint), in a store with a changelog.
 *
 * <p>Arguments: brokers, application id, schema file, state folder, progress file, threads, commit interval in ms. How
 * many events are in their windows is written to the progress file every 0.1 s, as `monotonic-ns count`. SIGTERM closes
 * it in good order.
 */
public final class Peer {
  private static final Duration SIZE = Duration.ofSeconds(60);
  private static final Duration STEP = Duration.ofSeconds(10);
  // Partitions of a backlog are read unevenly; nobody shall drop an event for that.
  private static final Duration GRACE = Duration.ofHours(1);
  private static final int MEASURE_BYTES = 9;
  private static final LongAdder UPDATES = new LongAdder();

  private Peer() {}

  public static void main(String[] arguments) throws Exception {
    Schema schema = new Schema.Parser().parse(Files.readString(Path.of(arguments[2])));
    KafkaStreams streams = new KafkaStreams(topology(schema), settings(arguments));
    streams.setUncaughtExceptionHandler(
        failure -> {
          failure.printStackTrace();
          Runtime.getRuntime().halt(1);
          return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
    Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(60))));
    streams.start();
    tell(Path.of(arguments[4]));
  }

  private static Topology topology(Schema schema) {
    StreamsBuilder builder = new StreamsBuilder();
    // One instance of a serde serves every thread, and a reader reuses its buffers.
    ThreadLocal<Probe.Reader> readers = ThreadLocal.withInitial(() -> new Probe.Reader(schema));
    Deserializer<Probe> probes = (topic, data) -> readers.get().deserialize(topic, data);
    Serializer<Probe> nothing =
        (topic, probe) -> {
          throw new UnsupportedOperationException("probe results are only read");
        };
    builder.stream(
            "probe-results",
            Consumed.with(Serdes.ByteArray(), Serdes.serdeFrom(nothing, probes))
                .withTimestampExtractor((found, before) -> ((Probe) found.value()).tsMs()))
        .map((node, probe) -> new org.apache.kafka.streams.KeyValue<>(probe.pair(), new Measure(probe)))
        .groupByKey(Grouped.with("pairs", Serdes.String(), measures()))
        .windowedBy(TimeWindows.ofSizeAndGrace(SIZE, GRACE).advanceBy(STEP))
        .aggregate(
            () -> Counts.NONE,
            (pair, measure, counts) -> {
              UPDATES.increment();
              return Counts.add(counts, measure.success(), measure.latencyUs());
            },
            Materialized.<String, byte[], WindowStore<Bytes, byte[]>>as("windows")
                .withKeySerde(Serdes.String())
                .withValueSerde(Serdes.ByteArray())
                .withRetention(SIZE.plus(GRACE)));
    return builder.build();
  }

  /** What travels to the pair's partition; the record's timestamp is the event's time. */
  private record Measure(boolean success, long latencyUs) {
    Measure(Probe probe) {
      this(probe.success(), probe.latencyUs());
    }
  }

  private static Serde<Measure> measures() {
    return Serdes.serdeFrom(
        (topic, measure) ->
            ByteBuffer.allocate(MEASURE_BYTES)
                .put((byte) (measure.success() ? 1 : 0))
                .putLong(measure.latencyUs())
                .array(),
        (topic, data) -> {
          ByteBuffer view = ByteBuffer.wrap(data);
          return new Measure(view.get() == 1, view.getLong());
        });
  }

  private static Properties settings(String[] arguments) {
    Properties settings = new Properties();
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, arguments[1]);
    settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[3]);
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, Integer.parseInt(arguments[5]));
    settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, Integer.parseInt(arguments[6]));
    settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
    settings.put("auto.offset.reset", "earliest");
    // Room for every open window, and large batches: what somebody would set who wants throughput.
    settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 256L << 20);
    settings.put(StreamsConfig.consumerPrefix("max.poll.records"), 5_000);
    settings.put(StreamsConfig.consumerPrefix("max.partition.fetch.bytes"), 8 << 20);
    settings.put(StreamsConfig.producerPrefix("linger.ms"), 20);
    settings.put(StreamsConfig.producerPrefix("batch.size"), 256 << 10);
    settings.put(StreamsConfig.producerPrefix("compression.type"), "lz4");
    return settings;
  }

  private static void tell(Path progress) throws IOException, InterruptedException {
    long windows = SIZE.dividedBy(STEP);
    try (PrintStream out = new PrintStream(Files.newOutputStream(progress), true)) {
      while (true) {
        out.print(System.nanoTime() + " " + UPDATES.sum() / windows + "\n");
        Thread.sleep(100);
      }
    }
  }
}
