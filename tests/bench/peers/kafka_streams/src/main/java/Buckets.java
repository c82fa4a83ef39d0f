import java.math.BigInteger;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Collectors;

/** The log buckets of streams/core/histogram.py, in Java: bucket i holds (1.02^(i-2), 1.02^(i-1)] µs, bucket 0 zero. */
final class Buckets {
  static final long MAX_LATENCY_US = 86_400_000_000L;
  private static final long[] BOUNDS = bounds();

  private Buckets() {}

  private static long[] bounds() {
    List<Long> bounds = new ArrayList<>(List.of(0L));
    BigInteger power = BigInteger.ONE;
    BigInteger scale = BigInteger.ONE;
    while (bounds.get(bounds.size() - 1) < MAX_LATENCY_US) {
      bounds.add(power.divide(scale).longValueExact());
      power = power.multiply(BigInteger.valueOf(51));
      scale = scale.multiply(BigInteger.valueOf(50));
    }
    return bounds.stream().mapToLong(Long::longValue).toArray();
  }

  /** The first bucket whose bound is not below the latency: small bounds are equal, so binarySearch alone is not enough. */
  static int of(long latencyUs) {
    int low = 0;
    int high = BOUNDS.length;
    while (low < high) {
      int middle = (low + high) >>> 1;
      if (BOUNDS[middle] < latencyUs) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  /** The bucket of each latency given, for the unit test that compares them with Python's. */
  public static void main(String[] latencies) {
    System.out.println(
        Arrays.stream(latencies)
            .map(latency -> String.valueOf(of(Long.parseLong(latency))))
            .collect(Collectors.joining(" ")));
  }
}
