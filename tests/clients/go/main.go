// Asks the SQL endpoint at HOST:PORT as Grafana's plugin does; prints one line `name=found` for each thing it tried.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

const rows = 1_000_000

type named struct {
	name   string
	method clickhouse.CompressionMethod
}

func main() {
	ctx := context.Background()
	plain := open(clickhouse.CompressionNone)
	defer plain.Close()
	fmt.Println("parameters=" + parameters(ctx, plain))
	fmt.Println("types=" + types(ctx, plain))
	fmt.Println("streamed=" + sum(ctx, plain))
	fmt.Printf("error=%d\n", code(plain.Exec(ctx, "SELECT * FROM nothing")))
	fmt.Printf("refused=%d\n", code(plain.Exec(ctx, "INSERT INTO samples (host) VALUES ('x')")))
	fmt.Printf("batch=%d\n", code(batch(ctx, plain)))
	fmt.Printf("file=%d\n", code(plain.Exec(ctx, "SELECT file('/etc/hostname')")))
	for _, packed := range []named{{"lz4", clickhouse.CompressionLZ4}, {"gzip", clickhouse.CompressionGZIP}} {
		connection := open(packed.method)
		fmt.Println(packed.name + "=" + sum(ctx, connection))
		must(connection.Close())
	}
}

func open(method clickhouse.CompressionMethod) driver.Conn {
	connection, err := clickhouse.Open(&clickhouse.Options{
		Addr:        []string{os.Args[1]},
		Protocol:    clickhouse.HTTP,
		Auth:        clickhouse.Auth{Database: "telemetry", Username: "anyone", Password: "anything"},
		Compression: &clickhouse.Compression{Method: method},
	})
	must(err)
	return connection
}

func parameters(ctx context.Context, connection driver.Conn) string {
	asked := clickhouse.Context(ctx, clickhouse.WithParameters(clickhouse.Parameters{
		"host": "h1", "least": "25000", "text": "it's \\ é",
	}))
	sql := "SELECT count(), {text:String} FROM samples WHERE host = {host:String} AND latency_us >= {least:UInt32}"
	var count uint64
	var text string
	must(connection.QueryRow(asked, sql).Scan(&count, &text))
	return fmt.Sprintf("%d %s", count, text)
}

func types(ctx context.Context, connection driver.Conn) string {
	sql := "SELECT ts, host, latency_us, maybe, labels FROM samples ORDER BY ts LIMIT 1 OFFSET 1"
	var ts time.Time
	var host string
	var latency uint32
	var maybe *uint16
	var labels map[string]string
	must(connection.QueryRow(ctx, sql).Scan(&ts, &host, &latency, &maybe, &labels))
	return fmt.Sprintf("%s %s %d %d %v", ts.UTC().Format(time.RFC3339), host, latency, *maybe, labels)
}

func sum(ctx context.Context, connection driver.Conn) string {
	found, err := connection.Query(ctx, fmt.Sprintf("SELECT number FROM numbers(%d)", rows))
	must(err)
	defer found.Close()
	var count, total, number uint64
	for found.Next() {
		must(found.Scan(&number))
		count++
		total += number
	}
	must(found.Err())
	return fmt.Sprintf("%d %d", count, total)
}

func batch(ctx context.Context, connection driver.Conn) error {
	prepared, err := connection.PrepareBatch(ctx, "INSERT INTO samples (host)")
	if err != nil {
		return err
	}
	if err := prepared.Append("x"); err != nil {
		return err
	}
	return prepared.Send()
}

// code is ClickHouse's; 0 without an error, -1 for one of the client itself.
func code(err error) int32 {
	var refused *clickhouse.Exception
	switch {
	case err == nil:
		return 0
	case errors.As(err, &refused):
		return refused.Code
	default:
		fmt.Fprintln(os.Stderr, err)
		return -1
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
