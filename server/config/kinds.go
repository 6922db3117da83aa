package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
)

// setter reads one value into a Config.
type setter func(*Config, string) error

// text is any string; the empty one only if it means something.
func text(field func(*Config) *string, mayBeEmpty bool) setter {
	return func(c *Config, s string) error {
		if s == "" && !mayBeEmpty {
			return errors.New("must not be empty")
		}
		*field(c) = s
		return nil
	}
}

func hostPort(field func(*Config) *string) setter {
	return func(c *Config, s string) error {
		_, port, err := net.SplitHostPort(s)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		*field(c) = s
		return err
	}
}

func boolean(field func(*Config) *bool) setter {
	return func(c *Config, s string) error {
		if s != "true" && s != "false" {
			return fmt.Errorf("%q is not true or false", s)
		}
		*field(c) = s == "true"
		return nil
	}
}

// duration reads Prometheus' durations: 15s, 1h30m, 7d, 1y. 0 only if it means something.
func duration(field func(*Config) *time.Duration, mayBeZero bool) setter {
	return func(c *Config, s string) error {
		d, err := model.ParseDuration(s)
		if err != nil {
			return err
		}
		if d == 0 && !mayBeZero {
			return errors.New("must be more than 0")
		}
		*field(c) = time.Duration(d)
		return nil
	}
}

// units of size, the longer names first.
var units = []struct {
	name string
	size int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"B", 1}, {"", 1}}

// size reads a number of bytes, with or without a unit.
func size(field func(*Config) *int64, least int64) setter {
	return func(c *Config, s string) error {
		for _, u := range units {
			digits, ok := strings.CutSuffix(s, u.name)
			if !ok {
				continue
			}
			n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
			if err != nil {
				return fmt.Errorf("%q is not a size such as 1048576, 256MiB or 2GiB", s)
			}
			if n < 0 || n > math.MaxInt64/u.size || n*u.size < least {
				return fmt.Errorf("%s is out of range: the least is %d bytes", s, least)
			}
			*field(c) = n * u.size
			return nil
		}
		return nil
	}
}

func count(field func(*Config) *int, least, most int) setter {
	return func(c *Config, s string) error {
		n, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", s)
		}
		if n < least || n > most {
			return fmt.Errorf("%d is not between %d and %d", n, least, most)
		}
		*field(c) = n
		return nil
	}
}

func level(field func(*Config) *string) setter {
	return func(c *Config, s string) error {
		switch s {
		case "debug", "info", "warn", "error":
			*field(c) = s
			return nil
		}
		return fmt.Errorf("%q is not debug, info, warn or error", s)
	}
}

// oneOf takes one of the names.
func oneOf(field func(*Config) *string, names ...string) setter {
	return func(c *Config, v string) error {
		if !slices.Contains(names, v) {
			return fmt.Errorf("%q is none of %s", v, strings.Join(names, ", "))
		}
		*field(c) = v
		return nil
	}
}

// texts reads values separated by commas; check, if given, judges each.
func texts(field func(*Config) *[]string, check func(string) error) setter {
	return func(c *Config, s string) error {
		var list []string
		for item := range strings.SplitSeq(s, ",") {
			item = strings.TrimSpace(item)
			if item == "" {
				continue
			}
			if check != nil {
				if err := check(item); err != nil {
					return err
				}
			}
			list = append(list, item)
		}
		*field(c) = list
		return nil
	}
}

// hostName judges the name of a host, without a port.
func hostName(s string) error {
	if strings.ContainsAny(s, ":/ *@") {
		return fmt.Errorf("%q is not the name of a host such as metrics.example", s)
	}
	return nil
}

// webURL reads a URL that browsers can open, or nothing.
func webURL(field func(*Config) *string) setter {
	return func(c *Config, s string) error {
		u, err := url.Parse(s)
		if s != "" && (err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https") {
			return errors.New("not an http or https URL without credentials")
		}
		*field(c) = strings.TrimSuffix(s, "/")
		return nil
	}
}
