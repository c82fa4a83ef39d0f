import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.List;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.IndexedRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.common.serialization.Deserializer;

/** What the windows need of a probe result; `tsMs` is event time, UTC. */
record Probe(String pair, long tsMs, boolean success, long latencyUs) {

  /** Reads framed Avro bodies; of the writer's fields only those that are needed become objects. Not thread-safe. */
  static final class Reader implements Deserializer<Probe> {
    private static final int FRAME_BYTES = 5;
    private static final List<String> NEEDED = List.of("ts", "service", "endpoint", "success", "latency_us");
    private final GenericDatumReader<IndexedRecord> reader;
    private final IndexedRecord reused;
    private BinaryDecoder decoder;

    Reader(Schema writer) {
      List<Schema.Field> fields =
          NEEDED.stream().map(name -> new Schema.Field(name, writer.getField(name).schema(), null, null)).toList();
      Schema needed = Schema.createRecord(writer.getName(), null, writer.getNamespace(), false, fields);
      reader = new GenericDatumReader<>(writer, needed);
      reused = new GenericData.Record(needed);
    }

    @Override
    public Probe deserialize(String topic, byte[] data) {
      decoder = DecoderFactory.get().binaryDecoder(data, FRAME_BYTES, data.length - FRAME_BYTES, decoder);
      try {
        IndexedRecord read = reader.read(reused, decoder);
        return new Probe(
            read.get(1) + "\t" + read.get(2), (Long) read.get(0), (Boolean) read.get(3), (Long) read.get(4));
      } catch (IOException cause) {
        throw new UncheckedIOException(cause);
      }
    }
  }
}
