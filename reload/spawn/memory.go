package spawn

// Memory is that of the cgroup with the least room, of those that the holder is in: a
// limit, and what is used of it and can't be had back, in bytes.
type Memory struct{ Limit, Used uint64 }

// Room is what is left.
func (m Memory) Room() uint64 { return m.Limit - min(m.Used, m.Limit) }
