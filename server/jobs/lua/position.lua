-- KEYS: job, then the model's queues. ARGV: group, ms of waiting that count as one level, index of the job's queue.
-- Returns {jobs waiting ahead, row-steps left of all jobs ahead, row-steps left of its own, the job's hash}: the hash and the
-- place are of one moment. Nothing is ahead of a job that runs; -1 jobs are ahead of one that has ended.
local facts = redis.call('HGETALL', KEYS[1])
local state, entry = unpack(redis.call('HMGET', KEYS[1], 'state', 'entry'))
local own = math.max(0, number('work') - number('done'))
if state ~= 'queued' then
  return {state == 'running' and 0 or -1, 0, own, facts}
end
local queues, group, aging = {unpack(KEYS, 2)}, ARGV[1], tonumber(ARGV[2])
local own_index = tonumber(ARGV[3])
local height = level(own_index, entry, aging)
local delivered = last_delivered(queues[own_index], group) or '0-0'
local was_begun = not is_before(delivered, entry)
local waiting, ahead = 0, 0
each_job(queues, group, function(_, other, index, work, is_waiting, is_begun)
  if other == entry and index == own_index then
    return
  end
  -- Entries of two streams may have the same id.
  local is_older = is_before(other, entry) or (other == entry and index < own_index)
  local is_ahead
  if is_begun ~= was_begun then
    is_ahead = is_begun
  elseif is_begun then
    is_ahead = not is_waiting or is_older
  else
    local other_height = level(index, other, aging)
    is_ahead = other_height < height or (other_height == height and is_older)
  end
  if is_ahead then
    ahead = ahead + work
    waiting = waiting + (is_waiting and 1 or 0)
  end
end)
return {waiting, ahead, own, facts}
