"""What ClickHouse's raw rows say of the stream's tables: the same sums, made in SQL."""
