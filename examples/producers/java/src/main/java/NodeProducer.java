import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Map;
import java.util.UUID;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.generic.GenericRecordBuilder;
import org.apache.avro.io.EncoderFactory;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * One boot of one node: a heartbeat, probe results, a goodbye. Once it is built, run it in the folder of pom.xml:
 * java -cp 'target/classes:target/jars/*' NodeProducer 127.0.0.1:19092 my-node 100
 */
public final class NodeProducer implements AutoCloseable {
    /** A topic, the id of its newest schema in schemas/topics, and that schema. */
    private enum Topic {
        HEARTBEATS("heartbeats", 6, "/heartbeat.v2.avsc"),
        PROBE_RESULTS("probe-results", 2, "/probe_result.v1.avsc");

        final String label;
        final int schemaId;
        final Schema schema;

        Topic(String label, int schemaId, String file) {
            this.label = label;
            this.schemaId = schemaId;
            try (var json = NodeProducer.class.getResourceAsStream(file)) {
                schema = new Schema.Parser().parse(json);
            } catch (IOException error) {
                throw new IllegalStateException(error);
            }
        }
    }

    private final String nodeId;
    private final String bootId = UUID.randomUUID().toString();
    private final long bootTs = System.currentTimeMillis();
    private final KafkaProducer<String, byte[]> producer;
    private volatile Exception failure;
    private long seq;
    private long heartbeatSeq;

    NodeProducer(String brokers, String nodeId) {
        this.nodeId = nodeId;
        // The client's defaults are right: acks=all, no record twice, partitions by murmur2 of the key's UTF-8.
        producer = new KafkaProducer<>(
                Map.of("bootstrap.servers", brokers), new StringSerializer(), new ByteArraySerializer());
    }

    /** State is UP, DRAINING or GOODBYE. Fields that are not set take the schema's defaults. */
    void heartbeat(String state) throws IOException {
        var states = Topic.HEARTBEATS.schema.getField("state").schema();
        send(Topic.HEARTBEATS, begin(Topic.HEARTBEATS)
                .set("boot_ts", bootTs).set("heartbeat_seq", heartbeatSeq++)
                .set("interval_ms", 10_000).set("state", new GenericData.EnumSymbol(states, state))
                .set("region", "eu-1").set("zone", "eu-1a").set("agent_version", "java-example"));
    }

    /** What the probe found, and after how many microseconds. */
    void probeResult(boolean success, long latencyUs) throws IOException {
        send(Topic.PROBE_RESULTS, begin(Topic.PROBE_RESULTS)
                .set("probe", "checkout-http").set("kind", "http")
                .set("service", "checkout").set("endpoint", "/pay").set("region", "eu-1")
                .set("success", success).set("latency_us", latencyUs).set("error", success ? null : "timeout"));
    }

    /** What every record says; seq counts those of all topics. */
    private GenericRecordBuilder begin(Topic topic) {
        return new GenericRecordBuilder(topic.schema)
                .set("node_id", nodeId).set("boot_id", bootId).set("seq", seq++).set("ts", System.currentTimeMillis());
    }

    private void send(Topic topic, GenericRecordBuilder record) throws IOException {
        refuseFailure();
        var message = new ProducerRecord<>(topic.label, nodeId, framed(topic.schemaId, record.build()));
        producer.send(message, (stored, error) -> failure = error == null ? failure : error);
    }

    /** A zero byte, the schema's id in four bytes, the record without a container header. */
    private static byte[] framed(int schemaId, GenericRecord record) throws IOException {
        var bytes = new ByteArrayOutputStream();
        bytes.writeBytes(ByteBuffer.allocate(5).put((byte) 0).putInt(schemaId).array());
        var encoder = EncoderFactory.get().binaryEncoder(bytes, null);
        new GenericDatumWriter<GenericRecord>(record.getSchema()).write(record, encoder);
        encoder.flush();
        return bytes.toByteArray();
    }

    /** Waits until the brokers have everything, or have refused it. */
    @Override
    public void close() {
        producer.close();
        refuseFailure();
    }

    private void refuseFailure() {
        if (failure != null) {
            throw new IllegalStateException("Kafka did not store all records", failure);
        }
    }

    public static void main(String[] arguments) throws IOException {
        int results = Integer.parseInt(arguments[2]);
        try (NodeProducer node = new NodeProducer(arguments[0], arguments[1])) {
            node.heartbeat("UP");
            for (int number = 1; number <= results; number++) {
                node.probeResult(number % 10 != 0, 40_000 + number); // each tenth fails
            }
            node.heartbeat("GOODBYE"); // a node that falls silent without it is reported as down
        }
        System.out.printf("%s: %d probe results and 2 heartbeats are stored%n", arguments[1], results);
    }
}
