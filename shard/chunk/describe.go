package chunk

// Description tells how a chunk is encoded: for dumps and for measuring encodings.
type Description struct {
	Count  int           // samples
	Times  ColumnSummary // timestamps, the count included
	Starts ColumnSummary // start timestamps; no bytes if there are none
	Values ColumnSummary // values or blobs
}

// ColumnSummary names the encoding of one column and its bytes.
type ColumnSummary struct {
	Encoding string // for example "schedule", "integers/delta", "xor"
	Bytes    int
}

// Describe tells how chunk b of the given kind is encoded. It decodes all of it, and
// fails with ErrCorrupt or ErrUnknownEncoding as decoding does.
func (d *Decoder) Describe(kind Kind, b []byte) (Description, error) {
	var err error
	if kind == Floats {
		_, _, _, err = d.Floats(b, nil, nil, nil)
	} else {
		_, _, _, err = d.Blobs(b, nil, nil, nil)
	}
	if err != nil {
		return Description{}, err
	}
	ts, rest, starts, err := d.timestamps(b, nil)
	if err != nil {
		return Description{}, err
	}
	head := b[uvarintLen(uint64(len(ts))):]
	out := Description{Count: len(ts), Times: ColumnSummary{transformName(head[0]), len(b) - len(rest)}}
	if starts {
		after, err := d.ints(rest[0], rest[1:], ts, 0)
		if err != nil {
			return Description{}, err
		}
		out.Starts = ColumnSummary{transformName(rest[0]), len(rest) - len(after)}
		rest = after
	}
	out.Values = ColumnSummary{valuesName(kind, rest), len(rest)}
	return out, nil
}

func transformName(mode byte) string {
	name := map[byte]string{
		idLinear: "linear", idFrame: "frame", idDelta: "delta", idDeltaZig: "delta-zigzag",
		idDeltaOfD: "delta-of-delta", idLine: "line", idSchedule: "schedule",
	}[mode&idMask]
	if mode&hasShift != 0 {
		name += "+shift"
	}
	return name
}

// valuesName names the encoding of b, which is known to decode.
func valuesName(kind Kind, b []byte) string {
	if kind != Floats {
		return "plain/" + transformName(b[1])
	}
	switch b[0] {
	case idRaw:
		return "raw"
	case idConstant:
		return "constant"
	case idConstInt:
		return "constant-integer"
	case idIntegers:
		return "integers/" + transformName(b[1])
	case idBits:
		return "bits/" + transformName(b[1])
	case idXOR:
		return "xor"
	case idCorrected:
		return "corrected/" + transformName(b[2])
	case idDecimals:
		if b[1]&hasMisfits != 0 {
			return "decimals+misfits"
		}
		return "decimals/" + transformName(b[2])
	}
	return "unknown"
}
