"""What a careful person writes by hand in an hour: the least that the same job can cost on grpc.aio."""
