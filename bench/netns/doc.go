// Package netns makes sockets in other network namespaces than the process's own, for tests and benchmarks
// (network_namespaces(7)). A socket belongs to the namespace of the thread that made it, wherever it is used; so threads
// are lent for as short as can be. There is nothing here on other systems than Linux.
package netns
