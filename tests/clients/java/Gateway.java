import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;

/** Asks the SQL endpoint at HOST:PORT as DBeaver does; prints one line `name=found` for each thing it tried. */
public final class Gateway {
    private static final long ROWS = 1_000_000;

    public static void main(String[] arguments) throws SQLException {
        String url = "jdbc:clickhouse://" + arguments[0] + "/telemetry";
        try (Connection plain = connect(url, "false", "")) {
            System.out.println("driver=" + plain.getMetaData().getDriverVersion());
            System.out.println("server=" + plain.getMetaData().getDatabaseProductName());
            System.out.println("parameters=" + parameters(plain));
            System.out.println("types=" + types(plain));
            System.out.println("tables=" + tables(plain));
            System.out.println("streamed=" + sum(plain));
            System.out.println("error=" + code(plain, "SELECT * FROM nothing"));
            System.out.println("refused=" + code(plain, "INSERT INTO samples (host) VALUES ('x')"));
            System.out.println("dropped=" + code(plain, "DROP TABLE samples"));
            System.out.println("file=" + code(plain, "SELECT file('/etc/hostname')"));
        }
        try (Connection lz4 = connect(url, "true", "false")) {
            System.out.println("lz4=" + sum(lz4));
        }
        try (Connection encoded = connect(url, "true", "true")) {
            System.out.println("encoded=" + sum(encoded));
            System.out.println("encoded-error=" + code(encoded, "SELECT * FROM nothing"));
        }
    }

    private static Connection connect(String url, String compress, String byHttp) throws SQLException {
        Properties options = new Properties();
        options.setProperty("user", "anyone");
        options.setProperty("password", "anything");
        options.setProperty("compress", compress);
        if (!byHttp.isEmpty()) {
            options.setProperty("client.use_http_compression", byHttp);
        }
        return DriverManager.getConnection(url, options);
    }

    private static String parameters(Connection connection) throws SQLException {
        String sql = "SELECT count(), ? FROM samples WHERE host = ? AND latency_us >= ?";
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            statement.setString(1, "it's \\ \u00e9");
            statement.setString(2, "h1");
            statement.setInt(3, 25_000);
            try (ResultSet found = statement.executeQuery()) {
                found.next();
                return found.getLong(1) + " " + found.getString(2);
            }
        }
    }

    private static String types(Connection connection) throws SQLException {
        String sql = "SELECT ts, host, latency_us, maybe, labels FROM samples ORDER BY ts LIMIT 1 OFFSET 1";
        try (Statement statement = connection.createStatement(); ResultSet found = statement.executeQuery(sql)) {
            found.next();
            return found.getTimestamp("ts").toInstant() + " " + found.getString("host") + " " + found.getLong("latency_us")
                + " " + found.getInt("maybe") + " " + found.getObject("labels");
        }
    }

    private static boolean tables(Connection connection) throws SQLException {
        boolean there = false;
        try (ResultSet found = connection.getMetaData().getTables(null, "telemetry", "%", null)) {
            while (found.next()) {
                there |= found.getString("TABLE_NAME").equals("samples");
            }
        }
        return there;
    }

    private static String sum(Connection connection) throws SQLException {
        long rows = 0;
        long sum = 0;
        try (Statement statement = connection.createStatement();
            ResultSet found = statement.executeQuery("SELECT number FROM numbers(" + ROWS + ")")) {
            while (found.next()) {
                rows++;
                sum += found.getLong(1);
            }
        }
        return rows + " " + sum;
    }

    private static int code(Connection connection, String sql) {
        try (Statement statement = connection.createStatement()) {
            statement.execute(sql);
            return 0;
        } catch (SQLException refused) {
            return refused.getErrorCode();
        }
    }
}
