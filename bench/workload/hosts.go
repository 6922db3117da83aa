package workload

import (
	"fmt"
	"sort"
	"strconv"
)

// family is a group of series that every host exports: one for each combination of its labels' values.
type family struct {
	name   string
	kind   kind
	labels []label // 1 to 3, so that with the 6 common ones a series has 7 to 9
}

type label struct {
	name   string
	values []string
}

// bounds are the bucket limits of the request histograms, with the part of all requests at or below each.
func bounds() (les []string, shares []float64) {
	return []string{"0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"},
		[]float64{0.08, 0.21, 0.44, 0.63, 0.79, 0.91, 0.962, 0.985, 0.994, 0.998, 0.9995, 1}
}

func numbered(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = prefix + strconv.Itoa(i)
	}
	return out
}

// families lists what a host exports, in the proportions of a host with a node exporter and one service:
// 64 CPU counters, disks, networks, file systems, memory, a service with histograms, and constants.
func families() []family {
	les, _ := bounds()
	modes := []string{"idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user"}
	disks := label{"device", []string{"nvme0n1", "nvme1n1", "sda", "sdb"}}
	nets := label{"device", []string{"eth0", "eth1", "lo", "docker0"}}
	mounts := label{"mountpoint", []string{"/", "/boot", "/data", "/var"}}
	ext4 := label{"fstype", []string{"ext4"}}
	handlers := label{"handler", []string{"/api/items", "/api/login", "/api/orders", "/healthz"}}
	team := label{"team", []string{"platform"}}
	out := []family{
		{"node_cpu_seconds_total", kindSeconds, []label{{"cpu", numbered("", 8)}, {"mode", modes}}},
		{"http_request_duration_seconds_bucket", kindHistogram, []label{handlers, {"code", []string{"200", "500"}}, {"le", les}}},
		{"http_requests_total", kindCount, []label{handlers, {"code", []string{"200", "404", "500"}}, {"method", []string{"GET", "POST"}}}},
		{"node_thermal_celsius", kindGauge, []label{{"sensor", numbered("temp", 12)}}},
		{"process_build_info", kindConstant, []label{{"version", []string{"1.14.2"}}, {"revision", []string{"8fe2c1d"}}}},
		{"queue_depth", kindGauge, []label{{"queue", numbered("q", 16)}, team}},
		{"cache_hit_ratio", kindGauge, []label{{"cache", numbered("shard-", 16)}, team}},
	}
	for _, n := range []string{"reads_completed", "writes_completed", "read_bytes", "written_bytes", "io_now", "reads_merged", "writes_merged", "discards_completed"} {
		out = append(out, family{"node_disk_" + n + "_total", kindCount, []label{disks}})
	}
	for _, n := range []string{"receive_bytes", "transmit_bytes", "receive_packets", "transmit_packets", "receive_errs", "transmit_errs", "receive_drop", "transmit_drop"} {
		out = append(out, family{"node_network_" + n + "_total", kindCount, []label{nets}})
	}
	for _, n := range []string{"avail_bytes", "free_bytes", "files_free"} {
		out = append(out, family{"node_filesystem_" + n, kindBytes, []label{mounts, ext4}})
	}
	for _, n := range []string{"size_bytes", "files", "readonly"} {
		out = append(out, family{"node_filesystem_" + n, kindConstant, []label{mounts, ext4}})
	}
	for _, n := range []string{"Active", "AnonPages", "Buffers", "Cached", "Committed_AS", "Dirty", "Inactive", "Mapped", "MemAvailable", "MemFree", "Shmem", "Slab"} {
		out = append(out, family{"node_memory_" + n + "_bytes", kindBytes, []label{team}})
	}
	for _, n := range []string{"CommitLimit", "HugePages_Total", "MemTotal", "SwapTotal", "VmallocTotal"} {
		out = append(out, family{"node_memory_" + n + "_bytes", kindConstant, []label{team}})
	}
	for _, n := range []string{"load1", "load5", "load15", "pressure_cpu", "pressure_io"} {
		out = append(out, family{"node_" + n, kindGauge, []label{team}})
	}
	return append(out, family{"jobs_done_total", kindCount, []label{{"job_name", numbered("batch-", 4)}, {"state", numbered("s", 40)}}})
}

// combination is one series of a family: the values of its own labels.
type combination struct {
	family
	values []string
}

// expand lists every combination of the families' label values, cut to perHost.
func expand() []combination {
	var out []combination
	for _, f := range families() {
		n := 1
		for _, l := range f.labels {
			n *= len(l.values)
		}
		for i := range n {
			c := combination{family: f}
			for rest, j := i, len(f.labels)-1; j >= 0; j-- {
				vs := f.labels[j].values
				c.values = append([]string{vs[rest%len(vs)]}, c.values...)
				rest /= len(vs)
			}
			out = append(out, c)
		}
	}
	return out[:min(perHost, len(out))]
}

// fleetSeries makes n series over as many hosts as they need.
func fleetSeries(n int, seed uint64) []series {
	combos := expand()
	_, shares := bounds()
	all := make([]series, 0, n)
	for host := 0; len(all) < n; host++ {
		instance := fmt.Sprintf("host-%05d.example.net:9100", host)
		common := [][2]string{
			{"instance", instance}, {"job", "node"}, {"env", []string{"prod", "staging"}[host%8/7]},
			{"region", []string{"eu-west-1", "us-east-1", "ap-south-1"}[host%3]}, {"rack", "r" + strconv.Itoa(host%40)},
		}
		for i, c := range combos {
			if len(all) == n {
				break
			}
			s := series{labels: encodeLabels(c, common), kind: c.kind, rnd: rng(seed<<32 + uint64(len(all)))}
			if c.kind == kindHistogram {
				b := len(shares)
				s.share = shares[(i-firstOf(combos, c.name))%b]
				s.rnd = rng(seed<<32 + uint64(len(all)-(i-firstOf(combos, c.name))%b))
			}
			s.start()
			all = append(all, s)
		}
	}
	return all
}

// familyNames lists the metric names of a fleet, sorted.
func familyNames() []string {
	var out []string
	for _, f := range families() {
		out = append(out, f.name)
	}
	sort.Strings(out)
	return out
}

// firstOf returns the place of a family's first series on a host.
func firstOf(combos []combination, name string) int {
	for i, c := range combos {
		if c.name == name {
			return i
		}
	}
	return 0
}

// encodeLabels returns the sorted labels of one series as protobuf fields.
func encodeLabels(c combination, common [][2]string) []byte {
	pairs := append([][2]string{{"__name__", c.name}}, common...)
	for i, l := range c.labels {
		pairs = append(pairs, [2]string{l.name, c.values[i]})
	}
	sort.Slice(pairs, func(i, j int) bool { return pairs[i][0] < pairs[j][0] })
	var out []byte
	for _, p := range pairs {
		out = appendLabel(out, p[0], p[1])
	}
	return out
}
