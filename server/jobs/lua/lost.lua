-- Arguments: seq (number of the event), body, age_ms (since submit), result_ms, tombstone_ms, fields (of the job).
-- A job that its worker still holds and of which Redis knows nothing any more ends as failed, for whoever asks or watches.
-- Returns 1 if it was lost, 0 if Redis knows of it: another worker has it, or it has ended.
if redis.call('EXISTS', key.job, key.tombstone) > 0 then
  return 0
end
redis.call('HSET', key.job, 'seq', args.seq - 1, 'created', now - args.age_ms, 'entry', '0-0', unpack(args.fields))
conclude('failed', args.body, args.result_ms, args.tombstone_ms)
return 1
