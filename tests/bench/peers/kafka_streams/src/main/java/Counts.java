import java.nio.ByteBuffer;

/**
 * The aggregate of one window as bytes, so that the store's serde has nothing to do: total, good, sum_us (longs), the
 * first bucket (int), then an int for each bucket up to the last one with a count.
 */
final class Counts {
  static final byte[] NONE = new byte[0];
  private static final int TOTAL = 0;
  private static final int GOOD = 8;
  private static final int SUM = 16;
  private static final int FIRST = 24;
  private static final int HEAD = 28;
  private static final int ROOM = 8;

  private Counts() {}

  /** Counts one event; changes `counts` where it can, so the caller goes on with what is returned. */
  static byte[] add(byte[] counts, boolean success, long latencyUs) {
    int bucket = Buckets.of(latencyUs);
    byte[] held = holding(counts, bucket);
    ByteBuffer view = ByteBuffer.wrap(held);
    view.putLong(TOTAL, view.getLong(TOTAL) + 1);
    view.putLong(GOOD, view.getLong(GOOD) + (success ? 1 : 0));
    view.putLong(SUM, view.getLong(SUM) + latencyUs);
    int place = HEAD + 4 * (bucket - view.getInt(FIRST));
    view.putInt(place, view.getInt(place) + 1);
    return held;
  }

  /** The same counts with room for a bucket, and for some beside it. */
  private static byte[] holding(byte[] counts, int bucket) {
    if (counts.length == 0) {
      byte[] first = new byte[HEAD + 4];
      ByteBuffer.wrap(first).putInt(FIRST, bucket);
      return first;
    }
    int low = ByteBuffer.wrap(counts).getInt(FIRST);
    int size = (counts.length - HEAD) / 4;
    if (low <= bucket && bucket < low + size) {
      return counts;
    }
    int from = bucket < low ? Math.max(0, bucket - ROOM) : low;
    int to = bucket < low ? low + size : bucket + 1 + ROOM;
    byte[] wider = new byte[HEAD + 4 * (to - from)];
    System.arraycopy(counts, 0, wider, 0, HEAD);
    System.arraycopy(counts, HEAD, wider, HEAD + 4 * (low - from), 4 * size);
    ByteBuffer.wrap(wider).putInt(FIRST, from);
    return wider;
  }
}
